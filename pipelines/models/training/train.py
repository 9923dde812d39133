"""Trains the demonstration generator on two cores: `python train.py OUT --steps N [--minutes M]`.

Everything is drawn from one seed. The learning rate falls to nothing over `--steps`, or over `--minutes` where the clock
gets there first; what was run is written to OUT/run.json. A checkpoint beside it lets `--resume` go on.
"""

import argparse
import json
import pathlib
import random
import time

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

import model as network
import tokens

LENGTHS = [96, 128, 160, 192, 240, 320, 448]
CHUNK = 2048
# Templates alone come first: they teach the answers' form. Then this share of the documents holds prose beyond them.
WIDE_FROM, WIDE = 0.5, 0.6


def batches(turns, budget, progress, copying=0.6):
    """Batches of about `budget` tokens; each holds rows of one length, padded on the right."""
    number = 0
    waiting = {length: [] for length in LENGTHS}
    while True:
        done = progress()
        copy_share = max(0.06, copying - 2.6 * done)
        for ids, weights in turns.chunk(number, CHUNK, copy_share, WIDE if done >= WIDE_FROM or copying < 0.6 else 0.0):
            length = next((length for length in LENGTHS if len(ids) <= length), None)
            if length is None:
                continue
            rows = waiting[length]
            rows.append((ids, weights))
            if len(rows) == budget // length:
                batch, factor = torch.zeros(len(rows), length, dtype=torch.long), torch.zeros(len(rows), length)
                for at, (ids, weights) in enumerate(rows):
                    batch[at, : len(ids)] = torch.tensor(ids)
                    factor[at, : len(ids)] = torch.tensor(weights)
                rows.clear()
                yield batch, factor
        number += 1


@torch.no_grad()
def exact_share(model, turns, count=384):
    """How many held-out answers come out letter for letter under greedy decoding (told by each token's own arg max)."""
    right = total = 0
    framed = sorted((row for row in turns.chunk(0, count, 0.0) if len(row[0]) <= LENGTHS[-1]), key=lambda row: len(row[0]))
    for start in range(0, len(framed), 32):
        rows = framed[start : start + 32]
        ids = torch.zeros(len(rows), len(rows[-1][0]), dtype=torch.long)
        answer = torch.zeros_like(ids, dtype=torch.bool)
        for at, (row, weights) in enumerate(rows):
            ids[at, : len(row)] = torch.tensor(row)
            answer[at, : len(row)] = torch.tensor(weights) >= 1
        with torch.autocast("cpu", torch.bfloat16):
            guess = model(ids[:, :-1]).argmax(-1)
        right += ((guess == ids[:, 1:]) | ~answer[:, 1:]).all(1).sum().item()
        total += len(rows)
    return right / total


def export(model, tokenizer, folder):
    """The folder that Tidemill and transformers load."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: weight.detach().half().contiguous() for name, weight in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    end, padding = tokenizer.token_to_id("<|im_end|>"), tokenizer.token_to_id("<|endoftext|>")
    special = {"bos_token_id": None, "eos_token_id": end, "pad_token_id": padding}
    config = network.CONFIG | {"vocab_size": tokenizer.get_vocab_size()} | special
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    generation = {"do_sample": False, "max_new_tokens": 160, "eos_token_id": end, "pad_token_id": padding}
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    tokens.save(tokenizer, folder)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--minutes", type=float, default=1e9)
    parser.add_argument("--seed", type=int, default=20260)
    parser.add_argument("--tokens", type=int, default=4096, help="of one step")
    parser.add_argument("--rate", type=float, default=0.02)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--plain", action="store_true", help="without torch.compile")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--begin", type=pathlib.Path, help="a folder whose weights and tokenizer to begin with")
    parser.add_argument("--copying", type=float, default=0.6, help="the share of plain copying at the start")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    random.seed(options.seed)
    options.out.mkdir(parents=True, exist_ok=True)

    tokenizer = Tokenizer.from_file(str(options.begin / "tokenizer.json")) if options.begin else tokens.train(options.seed)
    model = network.Writer(tokenizer.get_vocab_size())
    if options.begin:
        model.load_state_dict({name: weight.float() for name, weight in load_file(options.begin / "model.safetensors").items()})
    optimizer = network.Muon(model, rate=options.rate, embedding_rate=options.rate / 5)
    print(f"{sum(weight.numel() for weight in model.parameters()):,} parameters, {tokenizer.get_vocab_size()} tokens", flush=True)
    checkpoint, step, spent, seen, session = options.out / "checkpoint.pt", 0, 0.0, 0, 0
    if options.resume:
        saved = torch.load(checkpoint)
        model.load_state_dict(saved["model"])
        optimizer.load(saved["optimizer"])
        step, spent, seen, session = saved["step"], saved["spent"], saved["seen"], saved["session"] + 1
    loss_of = model.loss if options.plain else torch.compile(model.loss, dynamic=False)

    started = time.time() - spent
    progress = lambda: max(step / options.steps, (time.time() - started) / 60 / options.minutes)
    source = batches(tokens.Turns(tokenizer, f"{options.seed}/{session}"), options.tokens, progress, options.copying)
    held_out = tokens.Turns(tokenizer, "held out", evaluation=True)
    saved_at, mean, mark, mark_seen = time.time(), None, time.time(), seen
    while (done := progress()) < 1:
        ids, factor = next(source)
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(ids, factor) / factor.sum()
        loss.backward()
        total = loss.item()
        seen += ids.numel()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step(min(1.0, (step + 1) / 100, (1 - done) / 0.6))
        model.zero_grad(set_to_none=True)
        step += 1
        mean = total if mean is None else 0.98 * mean + 0.02 * total
        if step % 50 == 0:
            rate = (seen - mark_seen) / (time.time() - mark)
            mark, mark_seen = time.time(), seen
            print(f"step {step} done {done:.3f} loss {mean:.3f} tokens {seen / 1e6:.1f}M at {rate:.0f}/s", flush=True)
        if step % 500 == 0:
            print(f"step {step} exact answers {exact_share(model, held_out):.3f}", flush=True)
        if time.time() - saved_at > 240 or progress() >= 1:
            state = {"model": model.state_dict(), "optimizer": optimizer.state(), "step": step, "spent": time.time() - started, "seen": seen, "session": session}
            torch.save(state, checkpoint)
            export(model, tokenizer, options.out / "writer")
            saved_at = time.time()
    run = {"seed": options.seed, "steps": step, "tokens": seen, "minutes": round((time.time() - started) / 60, 1), "sessions": session + 1, "loss": round(mean, 4), "torch": torch.__version__}
    (options.out / "run.json").write_text(json.dumps(run, indent=2) + "\n")
    export(model, tokenizer, options.out / "writer")


if __name__ == "__main__":
    main()
