"""What a device computes against what transformers and sentence-transformers computed in f32: the golden files of tests/fixtures.

| kind | measure | limit |
| --- | --- | --- |
| all-MiniLM-L6-v2 | least cosine of a vector with the golden one | 0.9995 |
| tiny random encoders, whose 32 components round far more than 384 that were trained | the same | 0.99 |
| tiny classifiers | most that a logit is off | 0.05 |
| tiny generators | most that the logarithm of an answer's probability is off | twice what transformers' own bf16 is off |
| the same, greedily | logarithm of each token's probability; where it is off, a wrong turn was taken | only at or after a step whose two best are closer than that |
| MiniLM's shape | least cosine with sentence-transformers' f32 vectors of the same folder | 0.9995, or half again what its own bf16 keeps away |
"""

import hashlib
import json
import pathlib

FIXTURES = pathlib.Path(__file__).resolve().parent.parent / "fixtures"
TRAINED, TINY, LOGIT, BF16 = 0.9995, 0.99, 0.05, 2


def golden(path):
    return json.loads((FIXTURES / path).read_text())


def is_minilm(model):
    weights = model and model / "model.safetensors"
    return bool(weights) and weights.is_file() and hashlib.sha256(weights.read_bytes()).hexdigest() == golden("golden/minilm.json")["model_sha256"]


def checks(model):
    """The checks by name, each with its model, its requests and how its answers are judged."""
    made = {}
    if is_minilm(model):
        cases = golden("golden/minilm.json")["cases"]
        made["minilm"] = {"model": model, "requests": [{"encode": case["text"]} for case in cases], "judge": lambda answers: cosines(answers, [case["vector"] for case in cases], TRAINED)}
    tiny, folder = golden("golden/tiny.json"), FIXTURES / "models"
    encoder = tiny["tiny-xlm-roberta"]
    made["tiny-xlm-roberta"] = {"model": folder / "tiny-xlm-roberta", "requests": [{"encode": case["text"]} for case in encoder], "judge": lambda answers: cosines(answers, [case["mean_pooled_normalized"] for case in encoder], TINY)}
    for name in ("tiny-bert-classifier", "tiny-xlm-roberta-classifier"):
        made[name] = {"model": folder / name, "requests": [{"classify": case["text"]} for case in tiny[name]], "judge": lambda answers, cases=tiny[name]: logits(answers, [case["logits"] for case in cases])}
    for name, group in golden("generators/golden/answers.json")["models"].items():
        made[name] = {"model": FIXTURES / "generators" / name, "requests": [case["request"] for case in group["cases"]], "judge": lambda answers, group=group: answered(answers, group)}
    return made


def write(path, model):
    for name, check in checks(model).items():
        with path(f"parity-{name}.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(request) + "\n" for request in check["requests"])


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else None


def verdict(measure, found, limit, held, **more):
    return {"measure": measure, "found": round(found, 6), "limit": round(limit, 6), "held": bool(held)} | more


def judged(path, model, outcomes):
    """What each check found. One whose command did not end has no verdict: its end tells why, and it is not held."""
    found = []
    for name, check in checks(model).items():
        answers = read(path(f"parity-{name}.answers")) if outcomes[name]["end"] == "done" else None
        if answers is None or len(answers) != len(check["requests"]):
            found.append({"what": name, "measure": "answers", "found": len(answers or []), "limit": len(check["requests"]), "held": False})
            continue
        found += [{"what": name} | told for told in check["judge"](answers)]
    return found


def cosine(one, other):
    dot = lambda a, b: sum(x * y for x, y in zip(a, b, strict=True))
    return dot(one, other) / (dot(one, one) * dot(other, other)) ** 0.5


def cosines(answers, expected, limit):
    least = min(cosine(answer["vector"], vector) for answer, vector in zip(answers, expected, strict=True))
    return [verdict("least cosine", least, limit, least >= limit, cases=len(expected))]


def logits(answers, expected):
    worst = max(abs(got - value) for answer, values in zip(answers, expected, strict=True) for got, value in zip(answer["logits"], values, strict=True))
    return [verdict("logits off by", worst, LOGIT, worst <= LOGIT, cases=len(expected))]


def answered(answers, group):
    limit, off, steps, agreed, wrong = BF16 * group["bf16_error"], 0.0, 0, 0, 0
    for answer, case in zip(answers, group["cases"], strict=True):
        expected = case["log_probabilities"]
        if "scores" in answer:
            off = max(off, *(abs(got - value) for got, value in zip(answer["scores"], expected, strict=True)))
            continue
        got, margins = answer["log_probabilities"], case["margins"]
        same = next((at for at, (a, b) in enumerate(zip(got, expected)) if a is None or abs(a - b) > limit), min(len(got), len(expected)))
        steps, agreed = steps + len(expected), agreed + same
        is_all = same == len(expected) == len(got)
        # The turn itself may look right, being as likely as the one that was due: what follows it does not.
        wrong += not is_all and min(margins[: same + 1]) > limit
    first = verdict("log probabilities off by", off, limit, off <= limit)
    return [first, verdict("wrong turns where the way was clear", wrong, 0, wrong == 0, steps=steps, steps_agreed=agreed)]


def beside(path, told):
    """Our vectors of MiniLM's shape beside sentence-transformers' exact ones, where it told them."""
    exact, answers = next((line for line in told if "exact" in line), None), read(path)
    if not exact or not answers:
        return []
    least = min(cosine(answer["vector"], vector) for answer, vector in zip(answers, exact["exact"], strict=True))
    limit = min(TRAINED, 1 - 1.5 * (1 - exact["least_cosine"]))
    return [verdict("least cosine", least, limit, least >= limit, theirs=round(exact["least_cosine"], 6)) | {"what": "the encoder measured"}]
