#!/usr/bin/env python3
"""Measures tidemill on a GPU in one call of at most ten minutes, each figure beside what others make of the same material on the same card.

    deploy/build-cuda.sh --pack                                             # without a GPU; then copy target/cuda/tidemill.tar.xz and tests/
    python3 tests/bench/gpu.py --binary ./tidemill --out gpu.json           # on the machine with the GPU
    python3 tests/bench/gpu.py --binary target/release/tidemill --device cpu --scale 0.5    # the same on cores, on much less of everything

| part | what | beside |
| --- | --- | --- |
| parity | golden vectors, logits and probabilities of tests/fixtures, and all-MiniLM-L6-v2's where `--model` is it | what transformers and sentence-transformers computed in f32 |
| encoder | texts of 64 and of 256 tokens, in the shape of MiniLM | sentence-transformers, bf16 |
| classification | documents that share a long prefix; labels weighed as answers of a generator in the shape of Qwen2.5-0.5B | transformers, bf16: one pass a prompt, and one with the prefix kept |
| extraction | objects under a schema, prompts that share a prefix | transformers' batched `generate`, bf16: as many tokens, held to no schema |
| walk | from Parquet to Parquet: a label by description and a vector for each document; no ledger (`tidemill bench --output`) | the same by hand, with pyarrow and sentence-transformers, bf16 |

Python's own library is enough for ours. Peers need torch, transformers, sentence-transformers and pyarrow: what is missing is named in the
report, with what was not measured for it. `--model` and `--shape` are made of random weights where they are not given, which needs torch.

A part that outlasts its share of the time is killed, and what it had told by then stays. Each part is a line of JSON on stdout as it ends;
`--out` holds everything so far at any time; with `--json` the whole is the last line of stdout, and the table goes to stderr.
Exits with 1 where a fixture's values are missed or one of our commands fails.
"""

import argparse
import hashlib
import json
import os
import pathlib
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True

import gpu_parity
import material

HERE = pathlib.Path(__file__).resolve().parent
# What each part may take of the whole time; what one leaves over is the next one's.
SHARES = {"setup": 2.0, "parity": 1.0, "encoder": 2.5, "classification": 1.75, "extraction": 1.5, "walk": 1.25}
SIZES = {
    "cuda": {
        "encoder": {64: 65536, 256: 16384}, "encoder_batches": [512, 2048], "classification": 1024, "prefix": 400, "own": (40, 90), "decoder_batches": [32, 128],
        "extraction": 256, "extraction_batches": [128, 256], "walk": 50_000, "length": (40, 110), "walk_batch": 1024, "rounds": 3, "repeat": 2, "units": 8,
    },
    "cpu": {
        "encoder": {64: 128, 256: 32}, "encoder_batches": [16], "classification": 8, "prefix": 60, "own": (8, 16), "decoder_batches": [4],
        "extraction": 4, "extraction_batches": [4], "walk": 128, "length": (20, 40), "walk_batch": 16, "rounds": 2, "repeat": 1, "units": 2,
    },
}
PEERS = {"encoder": ["torch", "transformers", "sentence_transformers"], "classification": ["torch", "transformers"], "extraction": ["torch", "transformers"], "walk": ["torch", "transformers", "sentence_transformers", "pyarrow"]}


class Bench:
    def __init__(self, options):
        self.options, self.folder = options, options.folder
        kind = "cpu" if options.device == "cpu" else "cuda"
        self.sizes = dict(SIZES[kind])
        for name in ("classification", "extraction", "walk"):
            self.sizes[name] = self.scaled(self.sizes[name])
        self.sizes["encoder"] = {tokens: self.scaled(count) for tokens, count in self.sizes["encoder"].items()}
        self.model = options.model or self.folder / "minilm-shape"
        self.shape = options.shape or self.folder / "qwen-shape"
        self.config = self.folder / "tidemill.toml"
        self.missing, self.deadline = [], None

    def scaled(self, count):
        return max(2, round(count * self.options.scale))

    def path(self, name):
        return self.folder / name

    def tidemill(self, *arguments):
        return [str(self.options.binary), "--config", str(self.config), "--log", "warn", "bench", *map(str, arguments), "--json"]

    def requests(self, name, model, rounds, answers=None):
        more = ["--answers", answers] if answers else []
        return self.tidemill("--requests", self.path(f"{name}.jsonl"), "--model", model, "--rounds", rounds, *more)

    def peer(self, part, mode, model, inputs, batches, *more):
        """None where it cannot run; the report says why."""
        if self.options.no_peers or set(PEERS[part]) & set(self.missing):
            return None
        sizes = ["--batch", *batches, "--repeat", self.sizes["repeat"], "--device", self.options.device]
        return [self.options.python, str(HERE / "gpu_peers.py"), mode, "--model", str(model), "--input", *map(str, inputs), *map(str, sizes), *map(str, more)]

    def commands(self):
        """Every command of every part by name, in order."""
        sizes, rounds = self.sizes, self.sizes["rounds"]
        make = [self.options.python, str(HERE / "make_shape.py")]
        setup = {}
        if not self.options.shape:
            setup["qwen-shape"] = make + [str(self.shape)]
        if not self.options.model:
            setup["minilm-shape"] = make + [str(self.model), "--encoder"]
        parity = {name: self.requests(f"parity-{name}", check["model"], 1, self.path(f"parity-{name}.answers")) for name, check in gpu_parity.checks(self.options.model).items()}
        encoder = {f"tokens_{tokens}": self.requests(f"encoder-{tokens}", self.model, rounds) for tokens in sizes["encoder"]}
        encoder["vectors"] = self.requests("vectors", self.model, 1, self.path("vectors.answers"))
        texts = [self.path(f"encoder-{tokens}.jsonl") for tokens in sizes["encoder"]]
        encoder["peer"] = self.peer("encoder", "encode", self.model, texts, sizes["encoder_batches"], "--beside", self.path("vectors.jsonl"))
        classification = {"ours": self.requests("classification", self.shape, rounds), "peer": self.peer("classification", "classify", self.shape, [self.path("classification.jsonl")], sizes["decoder_batches"])}
        answers = self.path("extraction.answers")
        extraction = {"ours": self.requests("extraction", self.shape, rounds, answers)}
        extraction["peer"] = self.peer("extraction", "extract", self.shape, [self.path("extraction.jsonl")], sizes["extraction_batches"], "--answers", answers)
        walk = {"ours": self.tidemill("--pipeline", self.path("gpu-news.yaml"), "--input", self.path("news.parquet"), "--output", self.path("walk-ours"))}
        labels = json.dumps([[label, f"news about {label} and what people said of it"] for label in material.LABELS])
        walk["peer"] = self.peer("walk", "walk", self.model, [self.path("news.parquet")], [sizes["walk_batch"]], "--output", self.path("walk-peer"), "--labels", labels)
        parts = {"setup": setup, "parity": parity, "encoder": encoder, "classification": classification, "extraction": extraction, "walk": walk}
        wanted = set(self.options.only or parts)
        return {name: commands for name, commands in parts.items() if name in wanted or name == "setup" and wanted - {"parity"}}

    def prepare(self, part):
        """Writes what the part's commands read. Vocabularies are known only once the models are there."""
        sizes = self.sizes
        if part == "parity":
            gpu_parity.write(self.path, self.options.model)
        if part == "encoder":
            words = material.words_of(self.model)
            for tokens, count in sizes["encoder"].items():
                material.write_lines(self.path(f"encoder-{tokens}.jsonl"), [{"encode": text} for text in material.texts(words, count, tokens - 2, tokens)])
            material.write_lines(self.path("vectors.jsonl"), [{"encode": text} for text in material.texts(words, 16, (4, 120), 3)])
        if part == "classification":
            asked = material.conversations(sizes["classification"], sizes["prefix"], sizes["own"], 11)
            material.write_lines(self.path("classification.jsonl"), [{"score": {"messages": messages, "answers": material.LABELS}} for messages in asked])
        if part == "extraction":
            asked = material.conversations(sizes["extraction"], sizes["prefix"] // 2, sizes["own"], 13)
            material.write_lines(self.path("extraction.jsonl"), [{"generate": {"messages": messages, "max_tokens": material.MOST_WRITTEN, "schema": material.SCHEMA}} for messages in asked])
        if part == "walk":
            words, count = material.words_of(self.model), sizes["walk"]
            columns = {"id": [f"n-{number}" for number in range(count)], "title": material.texts(words, count, 6, 17), "text": material.texts(words, count, sizes["length"], 19)}
            material.write_parquet(self.path("news.parquet"), columns)
            self.path("gpu-news.yaml").write_text(material.pipeline())

    def write_config(self):
        model = json.dumps(str(self.model.resolve()))
        self.config.write_text(f"data_dir = {json.dumps(str(self.path('data')))}\n[engine]\ndevice = \"{self.options.device}\"\n[models.minilm]\npath = {model}\n[jobs]\nunits_at_a_time = {self.sizes['units']}\n")

    def run(self, command, until):
        """Runs until the end or the time is up; gives the lines of JSON that it told by then, and how it ended."""
        started = time.monotonic()
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as error:
            # In a session of its own, so that whatever it started ends with it.
            process = subprocess.Popen(command, stdout=out, stderr=error, env=environment(command[0] == str(self.options.binary)), start_new_session=True)
            try:
                code = process.wait(max(0.1, until - time.monotonic()))
                end = "done" if code == 0 else f"failed with {code}"
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                end = f"killed after {time.monotonic() - started:.0f} s: its share of the time was over"
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                raise
            out.seek(0), error.seek(0)
            told = [line for line in map(parsed, out.read().splitlines()) if line is not None]
            said = [line for line in error.read().splitlines() if line.strip()]
        outcome = {"end": end, "wall_seconds": round(time.monotonic() - started, 1), "told": told}
        return outcome if end == "done" else outcome | {"said": said[-3:]}


def parsed(line):
    """The object of a line; none where it is something else, or was cut off."""
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def environment(is_ours):
    """For us, with the CUDA libraries of the toolkit or of Python's packages where the loader finds them; peers bring their own."""
    if not is_ours:
        return dict(os.environ)
    places = [pathlib.Path("/usr/local/cuda/lib64")] + [folder for path in sys.path for folder in sorted(pathlib.Path(path).glob("nvidia/*/lib"))]
    found = [str(place) for place in places if any(place.glob("libcu*.so*")) or any(place.glob("libnvrtc.so*"))]
    known = [os.environ["LD_LIBRARY_PATH"]] if os.environ.get("LD_LIBRARY_PATH") else []
    return os.environ | ({"LD_LIBRARY_PATH": ":".join(known + found)} if found else {})


def machine(options):
    """What is measured, and on what."""
    binary = pathlib.Path(options.binary)
    answer = lambda *command: subprocess.run(command, capture_output=True, text=True, env=environment(command[0] == str(binary)))
    about = {"python": platform.python_version(), "system": platform.platform(), "cores": os.cpu_count(), "device": options.device, "scale": options.scale}
    about["binary"] = {"bytes": binary.stat().st_size, "sha256": hashlib.sha256(binary.read_bytes()).hexdigest()}
    version = answer(str(binary), "--version")
    about["binary"]["version"] = version.stdout.strip() or f"does not start: {(version.stderr.strip().splitlines() or ['no reason was given'])[-1]}"
    if options.device != "cpu":
        smi = shutil.which("nvidia-smi")
        asked = answer(smi, "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader") if smi else None
        about["gpu"] = asked.stdout.strip().splitlines() if asked and asked.returncode == 0 else "unknown: nvidia-smi does not answer"
    look = "import importlib.util, json; print(json.dumps([name for name in {!r} if importlib.util.find_spec(name) is None]))"
    wanted = sorted({name for names in PEERS.values() for name in names})
    looked = answer(options.python, "-c", look.format(wanted))
    about["missing_for_peers"] = json.loads(looked.stdout) if looked.returncode == 0 else wanted
    return about


def best(told):
    return max(told, key=lambda line: line["documents_per_second"]) if told else None


def rounded(number):
    return float(f"{number:.4g}")


def ratio(row, peer):
    """Ours over theirs, by documents."""
    if row.get("ours") and peer:
        row["peers"].append({"peer": peer["peer"], "documents_per_second": rounded(peer["documents_per_second"]), "batch": peer["batch"], "ratio": rounded(row["ours"]["documents_per_second"] / peer["documents_per_second"]), "figures": peer})


def ours(outcome):
    """The best round of a measurement."""
    report = next(iter(outcome["told"][-1:]), None)
    return report and (best(report["rounds"]) if "rounds" in report else report)


def rows(part, outcomes, bench):
    """The figures of a part: one row for each thing that is compared."""
    told = [line for line in outcomes.get("peer", {}).get("told", []) if "documents_per_second" in line]
    peers = lambda *wanted: [best([line for line in told if line.get("peer") == name and line.get("input", given) == given]) for name, given in wanted]
    made = []
    if part == "encoder":
        for tokens in bench.sizes["encoder"]:
            row = {"what": f"texts of {tokens} tokens", "ours": ours(outcomes[f"tokens_{tokens}"]), "peers": []}
            for peer in peers(("sentence-transformers", f"encoder-{tokens}.jsonl")):
                ratio(row, peer)
            made.append(row)
        return made
    names = {"classification": ["transformers", "transformers, prefix kept"], "extraction": ["transformers"], "walk": ["by hand"]}[part]
    row = {"what": part, "ours": ours(outcomes["ours"]), "peers": []}
    for peer in peers(*((name, None) for name in names)):
        ratio(row, peer)
    return [row]


def finished(part, outcomes, bench):
    """The report of a part."""
    report = {"part": part, "commands": {name: {key: value for key, value in outcome.items() if key != "told"} for name, outcome in outcomes.items()}}
    if part == "parity":
        report["checks"] = gpu_parity.judged(bench.path, bench.options.model, outcomes)
        if not gpu_parity.is_minilm(bench.options.model):
            report["left_out"] = "all-MiniLM-L6-v2's golden vectors: --model does not hold its weights"
    elif part != "setup":
        report["rows"] = rows(part, outcomes, bench)
        absent = sorted(set(PEERS[part]) & set(bench.missing))
        if bench.options.no_peers or absent:
            report["peers_left_out"] = "--no-peers" if bench.options.no_peers else f"python has no {', '.join(absent)}: nothing is beside ours"
    if part == "encoder":
        report["checks"] = gpu_parity.beside(bench.path("vectors.answers"), outcomes.get("peer", {}).get("told", []))
    return report


def is_whole(report):
    """Whether our commands ended well and no check failed. What peers make of it is theirs."""
    commands = all(outcome["end"] == "done" for name, outcome in report["commands"].items() if name != "peer")
    return commands and all(check["held"] for check in report.get("checks", []))


def table(reports):
    lines = [f"{'what':<44}{'documents/s':>12}{'tokens/s':>12}{'busy':>6}  beside"]
    for report in reports:
        for check in report.get("checks", []):
            lines.append(f"{'parity, ' + check['what']:<44}{'held' if check['held'] else 'MISSED':>12}  {check['measure']}: {check['found']} (limit {check['limit']})")
        for row in report.get("rows", []):
            mine = row["ours"]
            tokens = mine and (mine.get("tokens_per_second") or mine["tokens"] / mine["seconds"])
            figures = f"{mine['documents_per_second']:>12.1f}{tokens:>12.0f}{mine['device_busy_share']:>6.0%}" if mine else f"{'no figure':>12}{'':>18}"
            beside = "; ".join(f"{peer['peer']} {peer['documents_per_second']:.1f} at {peer['batch']}: ours {peer['ratio']:.2f} times" for peer in row["peers"])
            lines.append(f"{row['what']:<44}{figures}  {beside or report.get('peers_left_out', 'no peer ended in time')}")
        for name, outcome in report["commands"].items():
            if outcome["end"] != "done":
                lines.append(f"{report['part']}, {name}: {outcome['end']}: {' / '.join(outcome.get('said', []))[-300:]}")
        if "left_out" in report:
            lines.append(f"{report['part']}: left out: {report['left_out']}")
    return "\n".join(lines)


def run_all(commands, bench, until):
    """Each command may take an even share of what is left of the part's time, so that none starves those after it."""
    outcomes = {}
    for left, (name, command) in zip(range(len(commands), 0, -1), commands.items()):
        now = time.monotonic()
        outcomes[name] = bench.run(command, now + max(0.0, until - now) / left)
    return outcomes


def measure(bench):
    options, started = bench.options, time.monotonic()
    document = {"machine": machine(options), "parts": []}
    bench.missing = document["machine"]["missing_for_peers"]
    bench.write_config()
    parts = bench.commands()
    shares, until = sum(SHARES[part] for part in parts), started
    for part, commands in parts.items():
        until += options.minutes * 60 * SHARES[part] / shares
        if not commands:
            continue
        try:
            bench.prepare(part)
            outcomes = run_all({name: command for name, command in commands.items() if command}, bench, until)
            report = finished(part, outcomes, bench)
        except (OSError, LookupError) as error:
            # A model that could not be made, most of all: its parts are told as failed, and the others go on.
            report = {"part": part, "commands": {"preparation": {"end": f"failed: {error!r}", "wall_seconds": 0.0}}}
        document["parts"].append(report)
        document["seconds"] = round(time.monotonic() - started, 1)
        print(json.dumps(report), flush=True)
        if options.out:
            partial = options.out.with_name(options.out.name + ".partial")
            partial.write_text(json.dumps(document, indent=1) + "\n")
            partial.replace(options.out)
    print(table(document["parts"]), file=sys.stderr if options.json else sys.stdout, flush=True)
    if options.json:
        print(json.dumps(document), flush=True)
    return 0 if all(map(is_whole, document["parts"])) else 1


def main():
    parser = argparse.ArgumentParser(description="Measures tidemill on a GPU, each figure beside what others make of the same material.")
    parser.add_argument("--binary", type=pathlib.Path, required=True)
    parser.add_argument("--model", type=pathlib.Path, help="all-MiniLM-L6-v2's folder; unless given, its shape with random weights")
    parser.add_argument("--shape", type=pathlib.Path, help="make_shape.py's folder; made unless given")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1 or cpu")
    parser.add_argument("--minutes", type=float, default=9.5, help="for everything; half a minute under ten, so that the table is out before whoever set ten")
    parser.add_argument("--scale", type=float, default=1, help="of the numbers of documents")
    parser.add_argument("--only", choices=[part for part in SHARES if part != "setup"], action="append")
    parser.add_argument("--python", default=sys.executable, help="the interpreter of peers")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--out", type=pathlib.Path, help="where the whole is kept as JSON, rewritten after each part")
    parser.add_argument("--json", action="store_true", help="the whole as the last line of stdout")
    parser.add_argument("--dry-run", action="store_true", help="print the commands of each part and run none")
    options = parser.parse_args()
    if not options.binary.is_file():
        parser.error(f"there is no {options.binary}; build it with deploy/build-cuda.sh, or with cargo build --release for --device cpu")
    options.binary = options.binary.absolute()
    # Whoever ends the script ends what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="tidemill-gpu-") as folder:
        options.folder = pathlib.Path(folder)
        bench = Bench(options)
        if options.dry_run:
            print(json.dumps(bench.commands()))
            return 0
        return measure(bench)


if __name__ == "__main__":
    sys.exit(main())
