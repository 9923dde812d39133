"""Support tickets to try the writer on: `python make_samples.py`.

Drawn from the held-out split, so that their names and order numbers are none that training has seen. What is true of
them goes to the tests.
"""

import datetime
import json
import pathlib

import corpus

HERE = pathlib.Path(__file__).resolve().parent
SAMPLES = HERE.parent.parent / "samples" / "tickets.jsonl"
TRUTH = HERE.parents[2] / "tests" / "fixtures" / "tickets_truth.json"
COUNT = 30


def main():
    writer = corpus.Writer("sample tickets", evaluation=True)
    received = datetime.datetime(2026, 9, 7, 8, 0, tzinfo=datetime.timezone.utc)
    lines, truth = [], {}
    for number in range(1, COUNT + 1):
        ticket = writer.ticket()
        received += datetime.timedelta(minutes=writer.number(3, 240))
        identity = f"TK-{1000 + number}"
        lines.append(json.dumps({"ticket": identity, "text": ticket["text"], "received_at": received.strftime("%Y-%m-%dT%H:%M:%SZ"), "language": "en"}, ensure_ascii=False))
        truth[identity] = {"topic": ticket["label"], "fields": ticket["fields"]}
    SAMPLES.write_text("\n".join(lines) + "\n")
    TRUTH.write_text(json.dumps(truth, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    main()
