"""What the trained writer gets right, through transformers: `python evaluate.py FOLDER [--count 200]`.

Two kinds of documents: `shop_texts.jsonl`, which no template made, with facts labelled by hand; and the held-out split of
the corpus, with names and order numbers that training never drew. Facts are decoded freely and under the rules of strict
extraction (`grounded.py`). `--samples FILE` shows the answers to the English products of a JSONL file instead.
"""

import argparse
import json
import os
import pathlib
import re

import torch
import transformers

import corpus
import grounded
import shop
import words

HERE = pathlib.Path(__file__).resolve().parent
OUTCOMES = ["right", "missed", "wrong", "invented"]
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
    def answers(self, messages, most=128, rows=40):
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


def outcome(field, value, truths, text):
    """`missed` is null where the text says it; `wrong` is of the text, in a role that it has not; `invented` is not of the text."""
    if value is None:
        return "right" if None in truths else "missed"
    held = re.search(rf"(?<!\d){value}(?!\d)", text) if isinstance(value, int) else isinstance(value, str) and value in text
    if field == "problem":
        # A clause has no one right end: the core of it must be there, and nothing beyond the sentence.
        right = isinstance(value, str) and any(truth and truth[0].lower() in value.lower() and value.lower() in truth[1].lower() for truth in truths)
    else:
        right = value in truths
    return "right" if right else "wrong" if held else "invented"


def by_hand(writer, least=0.0):
    """The texts that no template made, in three ways of decoding."""
    rows = [json.loads(line) for line in (HERE / "shop_texts.jsonl").read_text().splitlines()]
    out = {}
    decoder = grounded.Decoder(writer)
    for kind in ("product", "ticket"):
        part = [row for row in rows if row["kind"] == kind]
        messages = [f"{kind}: {row['text']}" for row in part]
        answers = {
            "free": [answer if isinstance(answer, dict) else {} for answer in map(parsed, writer.answers(messages))],
            "grammar": [decoder.facts(message, row["text"], FIELDS[kind], units=kind == "product") for message, row in zip(messages, part)],
        }
        for way, given in answers.items():
            if way != "free":
                given = [{field: value if certain[field] >= least or field == "product" else None for field, value in answer.items()} for answer, certain in given]
            counts = {field: dict.fromkeys(OUTCOMES, 0) for field in FIELDS[kind]}
            clean = 0
            for row, answer in zip(part, given):
                told = {field: outcome(field, answer.get(field), row["fields"][field], row["text"]) for field in FIELDS[kind]}
                clean += all(state in ("right", "missed") for state in told.values())
                for field, state in told.items():
                    counts[field][state] += 1
            total = {state: sum(count[state] for count in counts.values()) for state in OUTCOMES}
            out[f"{kind} {way}"] = {"documents": len(part), "documents_without_a_wrong_field": clean, "all": total} | counts
        labelled = [row for row in part if row["labels"]]
        raw, corrected = writer.labels([corpus.turn(row | {"label": None}, "label")[0] for row in labelled], LABELS[kind], corpus.turn(labelled[0] | {"text": "N/A", "label": None}, "label")[0])
        out[f"{kind} labels"] = {"documents": len(labelled)} | {name: sum(guess in row["labels"] for guess, row in zip(guesses, labelled)) for name, guesses in (("raw", raw), ("prior_corrected", corrected))}
        if kind == "product":
            out["copy"] = copied(writer, [row["text"] for row in part])
    return out


def copied(writer, texts):
    """Summaries and page copy: how many hold the document's own sentences, letter for letter, and how many only words of it."""
    lines = writer.answers([f"summary: {text}" for text in texts])
    pages = [page if isinstance(page, dict) else {} for page in map(parsed, writer.answers([f"seo: {text}" for text in texts]))]
    known = lambda made, text: set(re.findall(r"[\w.]+\w|\w", made.lower())) <= set(re.findall(r"[\w.]+\w|\w", text.lower()))
    own = lambda made, text: bool(made) and made in text
    return {
        "documents": len(texts), "summary_verbatim": sum(own(line.partition(": ")[0], text) and own(line.partition(": ")[2], text) for line, text in zip(lines, texts)),
        "summary_first_sentence": sum(line.endswith(shop.first_sentence(text)) for line, text in zip(lines, texts)),
        "summary_only_words_of_the_text": sum(known(line, text) for line, text in zip(lines, texts)),
        "page_verbatim": sum(own(page.get("title"), text) and own(page.get("description"), text) for page, text in zip(pages, texts)),
        "page_only_words_of_the_text": sum(known(" ".join(map(str, page.values())), text) for page, text in zip(pages, texts)),
    }


def held_out(writer, count):
    drawn, out = corpus.Writer("evaluation", evaluation=True), {}
    for name, make in (("product", drawn.shop_product), ("ticket", drawn.ticket), ("ticket of a customer", drawn.shop_ticket)):
        rows = [make() for _ in range(count)]
        out[name] = extraction(writer, rows)
        kind = rows[0]["kind"]
        labelled = [row for row in rows if row["label"]]
        raw, corrected = writer.labels([corpus.turn(row, "label")[0] for row in labelled], LABELS[kind], corpus.turn(rows[0] | {"text": "N/A"}, "label")[0])
        for measure, guessed in (("labels", raw), ("labels_prior_corrected", corrected)):
            out[name][measure] = round(sum(guess == row["label"] for guess, row in zip(guessed, labelled)) / len(labelled), 4)
        for task in ("summary", "seo") if kind == "product" else ("summary",):
            turns = [corpus.turn(row, task) for row in rows]
            made = writer.answers([message for message, _ in turns])
            out[name][f"{task}_exact"] = round(sum(text == answer for text, (_, answer) in zip(made, turns)) / count, 4)
    return out


def show(writer, file, longest=400):
    """The answers to short English products, to be read: what strict extraction makes of them, and the copy."""
    seen, decoder = set(), grounded.Decoder(writer)
    for line in pathlib.Path(file).read_text().splitlines():
        product = parsed(line)
        if not isinstance(product, dict) or product.get("language") != "en" or not isinstance(product.get("description"), str):
            continue
        text = f"{product['title']}\n\n{product['description']}"
        if text in seen or len(text) >= longest:
            continue
        seen.add(text)
        free, summary, seo = writer.answers([f"product: {text}", f"summary: {text}", f"seo: {text}"])
        strict, certain = decoder.facts(f"product: {text}", text, FIELDS["product"])
        bound, _ = decoder.facts(f"product: {text}", text, FIELDS["product"], units=True)
        print(f"--- {len(seen)} {product['sku']}", text.replace("\n", " "), f"free    {free}", f"strict  {corpus.compact(strict)}", f"units   {corpus.compact(bound)}", f"certain {corpus.compact({field: round(share, 2) for field, share in certain.items()})}",
              f"brief   {summary}", f"page    {seo}", writer.labels([f"department: {text}"], LABELS["product"], "department: N/A")[1], sep="\n", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--count", type=int, default=200, help="of made-up documents of each kind")
    parser.add_argument("--least", type=float, default=0.0, help="the least certainty that a value under the grammar needs")
    parser.add_argument("--samples")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    torch.set_num_threads(options.threads)
    writer = Writer(options.folder)
    if options.samples:
        show(writer, options.samples)
        return
    for name, part in (by_hand(writer, options.least) | (held_out(writer, options.count) if options.count else {})).items():
        print(json.dumps({name: part}, ensure_ascii=False), flush=True)


if __name__ == "__main__":
    main()
