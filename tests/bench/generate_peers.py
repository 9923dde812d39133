#!/usr/bin/env python3
"""How fast others run the same weights on this machine's cores, as one line of JSON for each.

    pip install torch==2.15.0 transformers==5.23.0 llama-cpp-python
    python make_shape.py /tmp/shape --gguf bf16
    python generate_peers.py /tmp/shape --only transformers
    python generate_peers.py /tmp/shape --only llama.cpp --gguf /tmp/shape/model-bf16.gguf
    python generate_peers.py /tmp/shape --beside ../../target/release/tidemill

Prompts are ids: `--prefix` of them shared by all rows, `--own` of each row's own. Rates at 1 row and at `--rows`:

* prefill: ids of the prompts over the time to the first token, the shared ones counted once a row although a peer that
  can share them (llama.cpp) computes them once; `shared` says whether it does.
* decode: tokens after the first, of all rows together, over the time beyond that.

With `--beside`, ours is measured by `tidemill bench --generator` first, then each peer on prompts of the sizes that it uses (4 of 256
ids to read; 1 and 32 short ones that write 32 tokens each), and `ratios` are ours over theirs.

Each time is the best of `--repeat`. An end of text does not stop a row: all rows make `--new` tokens.
"""

import argparse
import ctypes
import json
import random
import subprocess
import time


def prompts(options, rows, vocabulary):
    rng = random.Random(11)
    prefix = [rng.randrange(1000, vocabulary) for _ in range(options.prefix)]
    return [prefix + [rng.randrange(1000, vocabulary) for _ in range(options.own)] for _ in range(rows)]


def rates(options, rows, first, whole):
    ids, later = rows * (options.prefix + options.own), rows * (options.new - 1)
    return {"prefill_tokens_per_second": round(ids / first, 1), "decode_tokens_per_second": round(later / (whole - first), 1)}


class Transformers:
    """Batched `generate`, greedy, in bf16."""

    shared = False

    def __init__(self, options):
        import torch
        import transformers

        self.torch, self.options = torch, options
        transformers.utils.logging.disable_progress_bar()
        torch.set_num_threads(options.threads)
        self.model = transformers.AutoModelForCausalLM.from_pretrained(options.folder, dtype=torch.bfloat16).eval()
        self.version = f"transformers {transformers.__version__}, torch {torch.__version__}, bf16"

    def time(self, rows, new):
        ids = self.torch.tensor(prompts(self.options, rows, 150000))
        start = time.perf_counter()
        with self.torch.inference_mode():
            out = self.model.generate(ids, attention_mask=self.torch.ones_like(ids), do_sample=False, min_new_tokens=new, max_new_tokens=new, pad_token_id=151643)
        assert out.shape[1] == ids.shape[1] + new, f"wanted {new} tokens a row, got {out.shape[1] - ids.shape[1]}"
        return time.perf_counter() - start

    def measure(self, rows):
        self.time(1, 2)  # The first call of all lays out weights; it would count as prefill.
        first = min(self.time(rows, 1) for _ in range(self.options.repeat))
        whole = min(self.time(rows, self.options.new) for _ in range(self.options.repeat))
        return rates(self.options, rows, first, whole)


class LlamaCpp:
    """llama.cpp's batches: the shared prefix once, its cells given to every row, then one token a row and step, greedy."""

    shared = True

    def __init__(self, options):
        import llama_cpp

        self.lib, self.options = llama_cpp, options
        llama_cpp.llama_backend_init()
        settings = llama_cpp.llama_model_default_params()
        settings.n_gpu_layers = 0
        self.model = llama_cpp.llama_model_load_from_file(str(options.gguf or f"{options.folder}/model-bf16.gguf").encode(), settings)
        if not self.model:
            raise SystemExit("llama.cpp cannot load the file: make it with make_shape.py --gguf bf16")
        self.vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        self.version = f"llama-cpp-python {llama_cpp.__version__}, {str(options.gguf or 'bf16').rsplit('-', 1)[-1].removesuffix('.gguf')}"

    def decode(self, context, entries):
        """One call over (id, position, sequence, wanted) entries, in parts of the context's batch; gives back where logits are."""
        lib, size, places = self.lib, self.options.batch, []
        for start in range(0, len(entries), size):
            part = entries[start : start + size]
            batch = lib.llama_batch_init(len(part), 0, 1)
            batch.n_tokens = len(part)
            places = []
            for at, (token, position, sequence, wanted) in enumerate(part):
                batch.token[at], batch.pos[at], batch.n_seq_id[at], batch.logits[at] = token, position, 1, wanted
                batch.seq_id[at][0] = sequence
                if wanted:
                    places.append(at)
            status = lib.llama_decode(context, batch)
            lib.llama_batch_free(batch)
            if status:
                raise SystemExit(f"llama_decode failed with {status}")
            if places and start + size < len(entries):
                raise SystemExit("--batch is smaller than the rows that want logits at once: make it larger")
        return places

    def best(self, context, place):
        import numpy

        logits = numpy.ctypeslib.as_array(ctypes.cast(self.lib.llama_get_logits_ith(context, place), ctypes.POINTER(ctypes.c_float)), (self.vocabulary,))
        return int(logits.argmax())

    def measure(self, rows):
        lib, options = self.lib, self.options
        first, whole = [], []
        for _ in range(options.repeat):
            settings = lib.llama_context_default_params()
            settings.n_ctx = rows * (options.prefix + options.own + options.new) + options.batch
            settings.n_batch = settings.n_ubatch = options.batch
            settings.n_seq_max, settings.kv_unified = rows, True
            settings.n_threads = settings.n_threads_batch = options.threads
            context = lib.llama_init_from_model(self.model, settings)
            texts, memory, start = prompts(options, rows, 150000), lib.llama_get_memory(context), time.perf_counter()
            self.decode(context, [(token, at, 0, False) for at, token in enumerate(texts[0][: options.prefix])])
            for row in range(1, rows):
                lib.llama_memory_seq_cp(memory, 0, row, -1, -1)
            tokens = []
            for row, text in enumerate(texts):
                last = len(text) - 1
                [place] = self.decode(context, [(text[at], at, row, at == last) for at in range(options.prefix, len(text))])
                tokens.append(self.best(context, place))
            first.append(time.perf_counter() - start)
            for step in range(options.new - 1):
                position = options.prefix + options.own + step
                places = self.decode(context, [(token, position, row, True) for row, token in enumerate(tokens)])
                tokens = [self.best(context, place) for place in places]
            whole.append(time.perf_counter() - start)
            lib.llama_free(context)
        return rates(options, rows, min(first), min(whole))


def beside(options, peers):
    """One line for ours and each peer, all on the same weights in the same run."""
    command = [options.beside, "bench", "--generator", "--model", options.folder, "--json"]
    report = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    ours = json.loads(report.splitlines()[-1])
    keys = {"prefill": "prefill_tokens_per_second", "decode_1": "decode_tokens_per_second_one_row", "decode_32": "decode_tokens_per_second"}
    print(json.dumps({"tidemill": ours}), flush=True)
    ours = {place: ours[key] for place, key in keys.items()}
    for name in peers:
        peer, theirs = PEERS[name](options), {}
        for place, own, new, rows in (("prefill", 256, 2, 4), ("decode_1", 16, 32, 1), ("decode_32", 16, 32, 32)):
            options.prefix, options.own, options.new = 0, own, new
            theirs[place] = peer.measure(rows)[f"{place.partition('_')[0]}_tokens_per_second"]
        ratios = {place: round(ours[place] / rate, 2) for place, rate in theirs.items()}
        print(json.dumps({"peer": name, "version": peer.version, **theirs, "ratios": ratios}), flush=True)


PEERS = {"transformers": Transformers, "llama.cpp": LlamaCpp}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--only", choices=PEERS, action="append")
    parser.add_argument("--gguf")
    parser.add_argument("--prefix", type=int, default=600)
    parser.add_argument("--own", type=int, default=250)
    parser.add_argument("--new", type=int, default=32)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--beside", metavar="TIDEMILL")
    options = parser.parse_args()
    if options.beside:
        return beside(options, options.only or PEERS)
    for name in options.only or PEERS:
        peer = PEERS[name](options)
        line = {"peer": name, "version": peer.version, "shared": peer.shared, "prefix": options.prefix, "own": options.own, "new": options.new, "threads": options.threads}
        for rows in (1, options.rows):
            line[f"rows_{rows}"] = peer.measure(rows)
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
