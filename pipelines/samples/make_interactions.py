"""What made-up people did with the products of the sample catalogue: `python make_interactions.py`.

Each has one or two departments that they come for, and reads English or Korean. Four of five times they turn to something in
there, and buy and praise some of it; otherwise they stray, and like that less. Some products draw more people than others. The
draw is seeded: the same file comes out every time.
"""

import datetime
import json
import pathlib
import random

HERE = pathlib.Path(__file__).resolve().parent
SAMPLES = HERE / "products-interactions.jsonl"
TRUTH = HERE.parents[1] / "tests" / "fixtures" / "products_truth.json"
PEOPLE = {"en": 40, "ko": 8}
SEED = 20260901


def history(draw, user, language, catalogue):
    """The documents that one person came to, in order, with what they did with each."""
    departments = sorted(catalogue)
    favourites = draw.sample(departments, draw.choice([1, 1, 2]))
    seen = set()
    for _ in range(draw.randint(4, 9)):
        home = draw.random() < 0.8
        department = draw.choice(favourites if home else departments)
        products = [sku for sku in catalogue[department].get(language, []) if sku not in seen]
        if not products:
            continue
        # The earlier of a department are the ones that many come across.
        sku = draw.choices(products, weights=[1 / (1 + place) ** 0.5 for place in range(len(products))])[0]
        seen.add(sku)
        content = department in favourites
        yield sku, "view", None
        if draw.random() < (0.45 if content else 0.1):
            yield sku, "purchase", None
            if draw.random() < 0.5:
                yield sku, "rating", draw.choice([4, 5, 5] if content else [1, 2])


def main():
    draw = random.Random(SEED)
    catalogue = json.loads(TRUTH.read_text())["categories"]
    events = []
    for language, count in PEOPLE.items():
        for number in range(1, count + 1):
            user = f"{language}-{number:02}"
            at = datetime.datetime(2026, 7, 1, tzinfo=datetime.timezone.utc) + datetime.timedelta(minutes=draw.randint(0, 40_000))
            for sku, kind, stars in history(draw, user, language, catalogue):
                at += datetime.timedelta(minutes=draw.randint(2, 90) if kind != "view" else draw.randint(60, 6_000))
                event = {"user": user, "sku": sku, "kind": kind, "at": at.strftime("%Y-%m-%dT%H:%M:%SZ")}
                events.append(event if stars is None else event | {"stars": stars})
    events.sort(key=lambda event: (event["at"], event["user"]))
    lines = [json.dumps({"event": f"E-{number:05}"} | event) for number, event in enumerate(events, 1)]
    # As streams have them: some are delivered again, and some say nothing that can be counted.
    lines[40:40] = lines[10:13]
    lines.insert(100, '{"event": "E-90001", "user": "en-01", "sku": "GD-1001", "kind": "veiw", "at": "2026-07-20T00:00:00Z"}')
    lines.insert(200, '{"event": "E-90002", "user": "", "sku": "GD-1001", "kind": "view", "at": "2026-07-20T00:00:00Z"}')
    SAMPLES.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
