#!/usr/bin/env python3
"""What others make of gpu.py's material on the same card, in bf16: one line of JSON for each figure as it is known. gpu.py runs this.

    pip install torch transformers sentence-transformers pyarrow

| mode | peer | what it does |
| --- | --- | --- |
| encode | sentence-transformers | `encode` of all texts, sorted by length as it does by itself, vectors on the host in the end |
| classify | transformers | one pass over each prompt, whole; the label by the next token alone |
| classify | transformers, prefix kept | the prefix that all prompts share once, then one pass over the rest of each |
| extract | transformers | `generate`: as many tokens as ours wrote, free, held to no schema |
| walk | by hand | pyarrow reads, sentence-transformers encodes, the label is that of the nearest description, pyarrow writes and syncs |

Every time is the best of `--repeat`, over the sizes of batch in `--batch`, after a warm-up on the first batch.
"""

import argparse
import copy
import json
import os
import pathlib
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

import torch
import transformers


def lines(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def tell(**figures):
    print(json.dumps(figures), flush=True)


def timed(options, work):
    """The seconds of the fastest of the repeats, everything on the device done."""
    best = float("inf")
    for _ in range(options.repeat):
        start = time.perf_counter()
        work()
        if options.device != "cpu":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return best


def versions(**more):
    return {"torch": torch.__version__, "transformers": transformers.__version__, "dtype": "bf16"} | more


def encoder(options, dtype):
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(options.model), device=options.device).to(dtype)


def vectors(model, texts, batch):
    return model.encode(texts, batch_size=batch, normalize_embeddings=True, convert_to_tensor=True, show_progress_bar=False).float().cpu()


def encode(options):
    import sentence_transformers

    version = versions(sentence_transformers=sentence_transformers.__version__)
    model = encoder(options, torch.bfloat16)
    for path in options.input:
        texts = [line["encode"] for line in lines(path)]
        tokens = sum(len(ids) for ids in model.tokenizer(texts, truncation=True, max_length=model.max_seq_length)["input_ids"])
        for batch in options.batch:
            vectors(model, texts[:batch], batch)
            seconds = timed(options, lambda: vectors(model, texts, batch))
            tell(peer="sentence-transformers", input=path.name, batch=batch, seconds=seconds, documents_per_second=len(texts) / seconds, tokens=tokens, tokens_per_second=tokens / seconds, version=version)
    if options.beside:
        texts = [line["encode"] for line in lines(options.beside)]
        coarse = vectors(model, texts, len(texts))
        exact = vectors(encoder(options, torch.float32), texts, 1)
        tell(peer="sentence-transformers", exact=exact.tolist(), least_cosine=torch.nn.functional.cosine_similarity(coarse, exact).min().item())


class Decoder:
    def __init__(self, options, kind):
        self.options = options
        transformers.utils.logging.disable_progress_bar()
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(options.model)
        self.model = transformers.AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.bfloat16).eval().to(options.device)
        requests = [line[kind] for line in lines(options.input[0])]
        text = lambda request: self.tokenizer.apply_chat_template(request["messages"], tokenize=False, add_generation_prompt=True)
        self.prompts = [self.tokenizer.encode(text(request), add_special_tokens=False) for request in requests]
        # Alike ones together, or the shorter ones of a batch would be padded for nothing.
        self.prompts.sort(key=len)

    def batches(self, prompts, size):
        """Ids and masks, padded on the left, so that every row ends at the same place."""
        for start in range(0, len(prompts), size):
            part = prompts[start : start + size]
            width = max(map(len, part))
            ids = [[0] * (width - len(prompt)) + prompt for prompt in part]
            mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in part]
            yield torch.tensor(ids, device=self.options.device), torch.tensor(mask, device=self.options.device)

    def tell(self, peer, batch, seconds, **more):
        tokens = sum(map(len, self.prompts))
        tell(peer=peer, batch=batch, seconds=seconds, documents_per_second=len(self.prompts) / seconds, prompt_tokens=tokens, version=versions(), **more)

    @torch.inference_mode()
    def read(self, prompts, size, kept=None):
        best, (cache, length) = [], kept or (None, 0)
        for ids, mask in self.batches(prompts, size):
            past = copy.deepcopy(cache)
            if past is not None:
                past.batch_repeat_interleave(len(ids))
                mask = torch.cat([mask.new_ones(len(ids), length), mask], 1)
            places = (mask.cumsum(1) - 1).clamp(min=0)[:, length:]
            logits = self.model(input_ids=ids, attention_mask=mask, position_ids=places, past_key_values=past, use_cache=past is not None, logits_to_keep=1).logits
            best.append(logits[:, -1].argmax(-1))
        return torch.cat(best).cpu()

    @torch.inference_mode()
    def prefix(self):
        """The cache of what all prompts begin with, and how long that is. At least one token of each is left."""
        length = len(os.path.commonprefix(self.prompts))
        length = min(length, len(self.prompts[0]) - 1)
        cache = transformers.DynamicCache(config=self.model.config)
        self.model(input_ids=torch.tensor([self.prompts[0][:length]], device=self.options.device), past_key_values=cache, use_cache=True, logits_to_keep=1)
        return cache, length

    def read_kept(self, size):
        kept = self.prefix()
        return self.read([prompt[kept[1] :] for prompt in self.prompts], size, kept)

    @torch.inference_mode()
    def write(self, prompts, size, new):
        for ids, mask in self.batches(prompts, size):
            out = self.model.generate(ids, attention_mask=mask, do_sample=False, min_new_tokens=new, max_new_tokens=new, pad_token_id=0)
            assert out.shape[1] == ids.shape[1] + new, f"wanted {new} tokens a row, got {out.shape[1] - ids.shape[1]}"


def classify(options):
    decoder = Decoder(options, "score")
    for batch in options.batch:
        whole = decoder.read(decoder.prompts[-batch:], batch)
        decoder.tell("transformers", batch, timed(options, lambda: decoder.read(decoder.prompts, batch)))
        kept, length = decoder.read_kept(batch), decoder.prefix()[1]
        seconds = timed(options, lambda: decoder.read_kept(batch))
        decoder.tell("transformers, prefix kept", batch, seconds, prefix=length, same_next_token=(kept[-batch:] == whole).float().mean().item())


def extract(options):
    decoder = Decoder(options, "generate")
    # What ours wrote, forced tokens and all; the same for every row, as `generate` has it.
    written = [line["generated"] for line in lines(options.answers)]
    new = max(1, round(sum(written) / len(written)))
    for batch in options.batch:
        decoder.write(decoder.prompts[-batch:], batch, 2)
        seconds = timed(options, lambda: decoder.write(decoder.prompts, batch, new))
        decoder.tell("transformers", batch, seconds, generated_tokens=new * len(decoder.prompts), generated_per_second=new * len(decoder.prompts) / seconds)


def walk(options):
    import pyarrow
    import pyarrow.parquet
    import sentence_transformers

    model, labels = encoder(options, torch.bfloat16), [description for _, description in options.labels]
    device = options.device
    described = vectors(model, labels, len(labels)).to(device)
    size = options.batch[0]
    vectors(model, ["warm up"] * size, size)

    def run():
        options.output.mkdir(parents=True, exist_ok=True)
        parts = pyarrow.parquet.ParquetFile(options.input[0]).iter_batches(batch_size=16 * size)
        for number, part in enumerate(parts):
            rows = part.to_pydict()
            texts = [f"{title}\n\n{text}" for title, text in zip(rows["title"], rows["text"])]
            found = vectors(model, texts, size)
            scores = (found.to(device) @ described.T / 0.04).softmax(-1).max(-1)
            table = pyarrow.table({
                "id": rows["id"], "label": [options.labels[at][0] for at in scores.indices.tolist()], "confidence": scores.values.tolist(),
                "embedding": pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(found.numpy().reshape(-1)), found.shape[1]),
            })
            with open(options.output / f"{number}.parquet", "wb") as file:
                pyarrow.parquet.write_table(table, file, compression="zstd", use_dictionary=["label"])
                file.flush()
                os.fsync(file.fileno())

    seconds = timed(options, run)
    rows = pyarrow.parquet.ParquetFile(options.input[0]).metadata.num_rows
    tell(peer="by hand", batch=size, seconds=seconds, documents_per_second=rows / seconds, version=versions(sentence_transformers=sentence_transformers.__version__, pyarrow=pyarrow.__version__))


def main():
    modes = {"encode": encode, "classify": classify, "extract": extract, "walk": walk}
    parser = argparse.ArgumentParser()
    parser.add_argument("mode", choices=modes)
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--input", type=pathlib.Path, nargs="+", required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, nargs="+", required=True)
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--beside", type=pathlib.Path, help="encode: texts whose exact vectors are told")
    parser.add_argument("--answers", type=pathlib.Path, help="extract: what ours answered")
    parser.add_argument("--output", type=pathlib.Path, help="walk: where files go")
    parser.add_argument("--labels", type=json.loads, help="walk: pairs of label and description")
    options = parser.parse_args()
    modes[options.mode](options)


if __name__ == "__main__":
    main()
