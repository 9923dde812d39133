"""What the trained writer gets right, through transformers' own `generate`: `python evaluate.py FOLDER [--count 400]`.

Documents are of the held-out split: another seed, and names and order numbers that training never drew. Prints one line
of JSON; `--samples FILE` shows its answers to the Korean and English products of a JSONL file instead.
"""

import argparse
import json
import os
import pathlib

import torch
import transformers

import corpus
import words

FIELDS = {"product": corpus.PRODUCT_FIELDS, "ticket": corpus.TICKET_FIELDS}
LABELS = {"product": list(words.NOUNS), "ticket": list(words.PROBLEMS)}


class Writer:
    def __init__(self, folder):
        transformers.utils.logging.disable_progress_bar()
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder, padding_side="left")
        self.model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def prompt(self, message):
        return self.tokenizer.apply_chat_template([{"role": "user", "content": message}], tokenize=False, add_generation_prompt=True)

    @torch.inference_mode()
    def answers(self, messages, most=192, rows=40):
        """Greedy answers, in the order asked; rows of about one length go together."""
        order, out = sorted(range(len(messages)), key=lambda at: len(messages[at])), [None] * len(messages)
        for start in range(0, len(order), rows):
            part = order[start : start + rows]
            batch = self.tokenizer([self.prompt(messages[at]) for at in part], return_tensors="pt", padding=True, add_special_tokens=False)
            made = self.model.generate(**batch, max_new_tokens=most, do_sample=False)[:, batch.input_ids.shape[1] :]
            for at, text in zip(part, self.tokenizer.batch_decode(made, skip_special_tokens=True)):
                out[at] = text
        return out

    @torch.inference_mode()
    def labels(self, messages, labels, prior):
        """The likeliest label of each message, corrected by what a document that says nothing is labelled."""
        ends = [self.tokenizer(label + "<|im_end|>", add_special_tokens=False).input_ids for label in labels]

        def scores(message):
            start = self.tokenizer(self.prompt(message), add_special_tokens=False).input_ids
            found = []
            for end in ends:
                logits = self.model(torch.tensor([start + end])).logits[0, len(start) - 1 : -1].log_softmax(-1)
                found.append(logits[range(len(end)), end].sum().item())
            return torch.tensor(found)

        base = scores(prior)
        raw = [scores(message) for message in messages]
        return [labels[score.argmax()] for score in raw], [labels[(score - base).argmax()] for score in raw]


def parsed(text):
    try:
        return json.loads(text)
    except ValueError:
        return None


def extraction(writer, rows):
    """Exact fields and documents, and what is left when strings that the text does not say are refused."""
    fields = FIELDS[rows[0]["kind"]]
    answers = [parsed(answer) for answer in writer.answers([corpus.turn(row, "facts")[0] for row in rows])]
    right = {field: 0 for field in fields}
    whole = strict = strict_right = 0
    for row, answer in zip(rows, answers):
        answer = answer if isinstance(answer, dict) else {}
        exact = {field: field in answer and answer[field] == row["fields"][field] for field in fields}
        for field in fields:
            right[field] += exact[field]
        whole += all(exact.values())
        if answer.keys() >= set(fields) and all(value in row["text"] for value in answer.values() if isinstance(value, str)):
            strict += 1
            strict_right += sum(exact.values())
    share = lambda count, of=len(rows): round(count / max(1, of), 4)
    return {
        "documents": len(rows), "fields_exact": share(sum(right.values()), len(rows) * len(fields)), "documents_exact": share(whole), "by_field": {field: share(count) for field, count in right.items()},
        "unparsable": sum(answer is None for answer in answers), "grounded_documents": share(strict), "fields_exact_where_grounded": share(strict_right, strict * len(fields)),
    }


def evaluate(writer, count):
    drawn, out = corpus.Writer("evaluation", evaluation=True), {}
    for name, make in (("product", drawn.product), ("ticket", drawn.ticket), ("korean product", drawn.korean_product)):
        rows = [make() for _ in range(count)]
        out[name] = extraction(writer, rows)
        kind = rows[0]["kind"]
        raw, corrected = writer.labels([corpus.turn(row, "label")[0] for row in rows], LABELS[kind], corpus.turn(rows[0] | {"text": "N/A"}, "label")[0])
        for measure, guessed in (("labels", raw), ("labels_prior_corrected", corrected)):
            out[name][measure] = round(sum(guess == row["label"] for guess, row in zip(guessed, rows)) / count, 4)
        for task in ("summary", "seo") if kind == "product" else ("summary",):
            turns = [corpus.turn(row, task) for row in rows]
            made = writer.answers([message for message, _ in turns])
            out[name][f"{task}_exact"] = round(sum(text == answer for text, (_, answer) in zip(made, turns)) / count, 4)
        print(json.dumps({name: out[name]}, ensure_ascii=False), flush=True)
    return out


def show(writer, file):
    """Answers to real-looking products, to be read."""
    seen, texts = set(), []
    for line in pathlib.Path(file).read_text().splitlines():
        product = parsed(line)
        if isinstance(product, dict) and product.get("language") in ("en", "ko") and isinstance(product.get("description"), str) and product.get("sku") not in seen:
            seen.add(product.get("sku"))
            texts.append(f"{product['title']}\n\n{product['description']}")
    for text in texts:
        messages = [f"product: {text}", f"summary: {text}", f"seo: {text}"]
        print("---", text[:300].replace("\n", " "), *writer.answers(messages), writer.labels([f"department: {text}"], LABELS["product"], "department: N/A")[1], sep="\n", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--samples")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    torch.set_num_threads(options.threads)
    writer = Writer(options.folder)
    if options.samples:
        show(writer, options.samples)
        return
    print(json.dumps(evaluate(writer, options.count), ensure_ascii=False))


if __name__ == "__main__":
    main()
