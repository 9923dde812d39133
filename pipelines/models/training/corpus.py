"""Made-up products and support tickets with the answers that a reader would give.

A text is written with its facts marked (`⟦material:oak⟧`); the first mention of a fact is its value, letter for letter,
and the marks are taken out. So the truth of a field is always a span of the text, or null where the text does not say.
"""

import json
import random
import re

import desk
import prose
import shop
import words

MARK = re.compile("⟦(\\w+):([^⟧]*)⟧")
PRODUCT_FIELDS = ["product", "brand", "material", "color", "size", "weight", "pieces"]
TICKET_FIELDS = ["customer", "order", "product", "problem", "request"]


def compact(value):
    """JSON as the grammar of the generator writes it: no white space."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def capital(text):
    """The first letter in upper case, also behind a mark."""
    match = re.match("⟦\\w+:", text)
    start = match.end() if match else 0
    return text[:start] + text[start : start + 1].upper() + text[start + 1 :]


def unmark(text):
    """The plain text, and the first marked value of each field."""
    values = {}
    for match in MARK.finditer(text):
        values.setdefault(match.group(1), match.group(2))
    return MARK.sub(lambda match: match.group(2), text), values


class Writer:
    """Writes documents of one split; every draw comes from its own seeded generator."""

    def __init__(self, seed, evaluation=False):
        self.rng = random.Random(seed)
        self.evaluation = evaluation
        self.wide = False  # Whether the document at hand has sentences beyond the templates.

    def pick(self, items):
        return self.rng.choice(items)

    def maybe(self, chance):
        return self.rng.random() < chance

    def name(self):
        return words.invented(self.rng, self.evaluation)

    def person(self):
        family = self.name() if not self.maybe(0.15) else f"{self.name()}-{self.name()}"
        return f"{self.name()} {family}"

    def brand(self):
        forms = ["{}", "{}", "{} & {}", "{} {}", "{} & Sons", "{} Works", "{} Lab", "{} Outdoor", "House of {}"]
        form = self.pick(forms)
        return form.format(*(self.name() for _ in range(form.count("{}"))))

    def number(self, low=1, high=400):
        return self.rng.randint(low, high)

    def decimal(self):
        return f"{self.number(0, 19)}.{self.number(1, 9)}"

    def measure(self):
        unit = self.pick(["cm", "cm", "cm", "mm", "m", "l", "litres", "ml", "inches"])
        if unit in ("l", "litres", "m"):
            return f"{self.pick([str(self.number(1, 60)), self.decimal()])} {unit}"
        if unit == "ml":
            return f"{self.number(5, 95) * 10} ml"
        count = 1 if unit == "inches" else self.pick([1, 1, 2, 2, 3])
        sides = [self.pick([str(self.number(2, 400)), str(self.number(2, 99)), str(self.number(2, 99)), self.decimal()]) for _ in range(count)]
        return f"{' x '.join(sides)} {unit}"

    def weight(self):
        return self.pick([f"{self.number(5, 990)} g", f"{self.decimal()} kg", f"{self.number(1, 40)} kg", f"{self.number(1, 9)}.{self.number(10, 99)} kg"])

    # Sentences that state one or two facts.

    def of_material(self, part):
        material = f"⟦material:{self.material()}⟧"
        if self.wide and self.maybe(0.6):
            return prose.material(self, capital(material) if self.maybe(0.4) else material, part)
        return self.pick([
            f"Made of {material}", f"Made from solid {material}", f"{capital(material)}, {self.pick(words.ADJECTIVES)} and {self.pick(words.ADJECTIVES)}",
            f"{capital(material)} body with a {self.pick(words.ADJECTIVES)} {part}", f"{capital(self.pick(words.ADJECTIVES))} {material} with a {self.pick(words.ADJECTIVES)} {part}",
            f"The {part} is of {material}", f"Turned from {material} in one piece", f"{capital(material)} {part}, {self.pick(words.ADJECTIVES)} {part}", f"A {part} of {material}",
            f"{capital(material)} that {self.pick(words.VERBS)} for years", f"We use {material} and nothing else", f"Pure {material}, {self.pick(words.MODIFIERS)} to the touch",
            f"{capital(material)}: {self.pick(words.MODIFIERS)} in use, {self.pick(words.MODIFIERS)} to the touch", f"{capital(part)} and frame in {material}",
        ])

    def of_color(self, part):
        color = f"⟦color:{self.pick(words.COLORS)}⟧"
        return self.pick([
            f"Comes in {color}", f"Colour: {color}", f"The {part} is {color}", f"{capital(color)} with a {self.pick(words.MODIFIERS)} finish", f"In {color}",
            f"A {color} {part} that {self.pick(words.VERBS)}", f"Painted {color}", f"With a {color} {part}", f"{capital(color)}, as in the picture",
        ])

    def of_size(self, size):
        size = f"⟦size:{size}⟧"
        if self.wide and self.maybe(0.5):
            return prose.size(self, size)
        return self.pick([
            f"Size {size}", f"Measures {size}", f"{size}, {self.pick(words.MODIFIERS)} and {self.pick(words.MODIFIERS)}", f"It is {size}", f"Dimensions: {size}", f"{size} in all", f"{size} across",
            f"At {size} it suits {self.pick(words.MODIFIERS)} {self.pick(words.WORDS)}s", f"Holds {size}" if size.endswith("l⟧") else f"Length {size}", f"About {size}",
        ])

    def of_weight(self, weight):
        weight = f"⟦weight:{weight}⟧"
        if self.wide and self.maybe(0.5):
            return prose.weight(self, weight)
        return self.pick([f"Weighs {weight}", f"It weighs {weight}", f"{weight} in all", f"Empty weight {weight}", f"Weight {weight}", f"Only {weight}", f"At {weight} it is {self.pick(words.MODIFIERS)} to carry", f"{weight}"])

    def of_pieces(self, pieces):
        pieces = f"⟦pieces:{pieces}⟧"
        return self.pick([f"Set of {pieces}", f"Pack of {pieces}", f"{pieces} pieces", f"Box of {pieces}", f"{pieces} pieces in a {self.pick(words.THINGS)}", f"Sold as a set of {pieces}"])

    def of_brand(self, brand):
        brand = f"⟦brand:{brand}⟧"
        return self.pick([f"By {brand}", f"Made by {brand}", f"A classic by {brand}", f"Designed by {brand}", f"From the workshop of {brand}", f"Brand: {brand}", f"{brand} makes it by hand"])

    def material(self):
        if self.maybe(0.07):
            return f"{self.name().lower()} {self.pick(['leather', 'wood', 'steel', 'cotton', 'fibre'])}"
        return self.pick(words.MATERIALS)

    def noise(self, department):
        """A sentence that states none of the fields, though it may well hold numbers and measures."""
        if self.wide and self.maybe(0.75):
            return prose.english(self)
        part, cue = self.pick(words.PARTS[department]), self.pick(words.CUES[department])
        word = lambda: self.name().lower() if self.maybe(0.2) else self.pick(words.WORDS)
        verb, modifier = lambda: self.pick(words.VERBS), lambda: self.pick(words.MODIFIERS)
        return self.pick([
            lambda: f"For {cue}", lambda: f"Good for {cue}", lambda: f"Made for {cue} and {self.pick(words.CUES[department])}", lambda: f"Think of {cue}", lambda: f"Nothing is better for {cue}",
            lambda: f"It {verb()} {cue} without {word()}", lambda: f"The {part} {verb()} and {verb()}", lambda: f"The {part} {verb()} the {word()}, so that the {word()} {verb()}",
            lambda: f"A {modifier()} {word()} for the {word()}", lambda: f"No {word()}, no {word()}, just {cue}", lambda: f"Comes with a {self.pick(words.THINGS)} and a {self.pick(words.THINGS)}",
            lambda: f"{capital(modifier())} {part}, {modifier()} {word()}", lambda: f"Guaranteed for {self.number(2, 30)} years", lambda: f"Lasts {self.number(2, 90)} hours", lambda: f"It carries {self.number(5, 200)} kg",
            lambda: f"Holds up to {self.number(5, 300)} kg", lambda: f"Ships in {self.number(1, 9)} days", lambda: f"Keeps the {word()} {modifier()} for {self.number(2, 48)} hours", lambda: f"Suitable from {self.number(2, 12)} years",
            lambda: f"The {word()} {verb()} after {self.number(2, 90)} minutes", lambda: f"Wash it at {self.number(3, 9) * 10} degrees", lambda: f"If the {word()} is {modifier()}, the {part} {verb()} it", lambda: f"Because a {word()} is never {modifier()} enough",
            lambda: f"You can {self.pick(['wash', 'fold', 'replace', 'mend', 'open', 'store', 'carry'])} the {part} with one hand", lambda: f"The {part} can be replaced with a {self.pick(words.THINGS)}", lambda: f"Model {self.name()} {self.number(2, 900)}",
            lambda: f"{capital(word())} and {word()} stay {modifier()}", lambda: f"{capital(cue)}: that is what it is for", lambda: f"What a {word()} {verb()}, a {word()} {verb()}", lambda: f"Tested by {self.number(3, 90)} {word()}s",
            lambda: f"Please do not leave it in the {word()}", lambda: f"{self.number(10, 99)} % less {word()} than before", lambda: f"A {self.pick(words.THINGS)} is in the box", lambda: f"The {part} {verb()} like a {word()}",
        ])()

    def product(self):
        """A product: its text, the department, and its fields."""
        department = self.pick(list(words.NOUNS))
        noun, part = self.pick(words.NOUNS[department]), self.pick(words.PARTS[department])
        if self.maybe(0.1):
            noun = f"{noun.split()[0]} {self.name().lower()}" if self.maybe(0.5) else self.name().lower()
        chances = {"material": 0.75, "color": 0.45, "size": 0.7, "weight": 0.4, "brand": 0.3, "pieces": 0.25}
        stated = {field for field, chance in chances.items() if self.maybe(chance)}
        sentences, title = [], noun
        brand, size, weight, pieces = self.brand(), self.measure(), self.weight(), self.pick([self.number(2, 24), self.number(2, 24), self.number(25, 500)])
        makers = {"material": lambda: self.of_material(part), "color": lambda: self.of_color(part), "size": lambda: self.of_size(size), "weight": lambda: self.of_weight(weight),
                  "pieces": lambda: self.of_pieces(pieces), "brand": lambda: self.of_brand(brand)}
        lead = self.rng.random()
        if "material" in stated and lead < 0.3:
            title = f"⟦material:{self.material()}⟧ {noun}"
            stated -= {"material"} if self.maybe(0.7) else set()
        elif "color" in stated and lead < 0.42:
            title = f"⟦color:{self.pick(words.COLORS)}⟧ {noun}"
            stated.remove("color")
        elif self.wide and lead < 0.62:
            title = prose.title(self, noun)
        elif lead < 0.65:
            title = f"{self.pick(words.ADJECTIVES)} {noun}"
        elif lead < 0.72:
            title = f"{noun} {self.name()}"
        title = capital(title)
        product, _ = unmark(title)
        tail = self.rng.random()
        if "size" in stated and tail < 0.35:
            title += f", ⟦size:{size}⟧"
            stated.remove("size")
        elif "pieces" in stated and tail < 0.5:
            title += f", {self.pick(['set of', 'pack of', 'box of'])} ⟦pieces:{pieces}⟧"
            stated.remove("pieces")
        elif "weight" in stated and tail < 0.58:
            title += f", ⟦weight:{weight}⟧"
            stated.remove("weight")
        elif "color" in stated and tail < 0.66:
            title += f", ⟦color:{self.pick(words.COLORS)}⟧"
            stated.remove("color")
        elif tail < 0.74:
            title += f", {self.pick(words.TAILS)}"
        elif tail < 0.82:
            title += f" with {self.pick(words.THINGS + words.PARTS[department])}"
        elif tail < 0.88:
            title += f" for {self.pick(words.CUES[department])}"
        if "brand" in stated and self.maybe(0.25):
            title += f" by ⟦brand:{brand}⟧"
            stated.remove("brand")
        facts = [makers[field]() for field in sorted(stated)]
        self.rng.shuffle(facts)
        while len(facts) > 1 and self.maybe(0.35):
            joint = facts.pop()
            facts[-1] += self.pick([", ", ", ", "; "]) + (joint if re.match("⟦brand|⟦size:\\d|I ", joint) or joint.startswith(brand) else joint[0].lower() + joint[1:])
        sentences = facts + [self.noise(department) for _ in range(self.pick([0, 1, 1, 2, 2, 3, 4]) if self.maybe(0.96) else self.number(5, 9))]
        self.rng.shuffle(sentences)
        if not sentences:
            sentences = [self.noise(department)]
        # The department must show somewhere: in the noun, or in what the product is for.
        if noun not in words.NOUNS[department]:
            sentences.insert(self.rng.randrange(len(sentences) + 1), f"{self.pick(['For', 'Good for', 'Made for'])} {self.pick(words.CUES[department])}")
        text, values = unmark(f"{title}\n\n{'. '.join(capital(sentence) for sentence in sentences)}.")
        fields = {field: values.get(field) for field in PRODUCT_FIELDS} | {"product": product}
        fields["pieces"] = int(fields["pieces"]) if fields["pieces"] else None
        return {"kind": "product", "language": "en", "text": text, "label": department, "fields": fields}

    def shop_product(self):
        """A product whose words are those of a shop; one in three belongs to a department and says so."""
        department = self.pick(list(words.NOUNS)) if self.maybe(0.35) else None
        text, values, name = shop.product(self, capital, unmark, department)
        fields = {field: values.get(field) for field in PRODUCT_FIELDS} | {"product": name}
        fields["pieces"] = int(fields["pieces"]) if fields["pieces"] else None
        return {"kind": "product", "language": "en", "text": text, "label": department, "fields": fields}

    def shop_ticket(self):
        """A ticket in more than one form of words."""
        text, topic = desk.ticket(self, capital)
        text, values = unmark(text)
        return {"kind": "ticket", "language": "en", "text": text, "label": topic, "fields": {field: values.get(field) for field in TICKET_FIELDS}}

    def ticket(self):
        """A support ticket: its text, its topic, and its fields."""
        topic = self.pick(list(words.PROBLEMS))
        department = self.pick(list(words.NOUNS))
        noun = self.pick(words.NOUNS[department])
        if self.maybe(0.4):
            noun = f"{self.pick([self.pick(words.ADJECTIVES), self.pick(words.COLORS), self.pick(words.MATERIALS)])} {noun}"
        if self.maybe(0.2):
            noun = f"{self.name()} {noun}"
        customer, order = f"⟦customer:{self.person()}⟧", f"⟦order:{words.order_number(self.rng, self.evaluation)}⟧"
        problem, request = f"⟦problem:{self.pick(words.PROBLEMS[topic])}⟧", f"⟦request:{self.pick(words.REQUESTS[topic])}⟧"
        product = f"⟦product:{noun}⟧"
        stated = {field for field, chance in {"customer": 0.8, "order": 0.75, "product": 0.8 if topic != "account" else 0.15, "request": 0.6}.items() if self.maybe(chance)}
        parts = []
        if {"order", "product"} <= stated and self.maybe(0.6):
            parts.append(self.pick([f"I ordered the {product}, order {order}", f"My order {order} was a {product}", f"It is about the {product} from order {order}", f"This is about order {order}: one {product}", f"On order {order} there is a {product}"]))
        else:
            if "product" in stated:
                parts.append(self.pick([f"I bought a {product} from you", f"It is about the {product}", f"I have a question about the {product}", f"Last week I got the {product}", f"The {product} is new"]))
            if "order" in stated:
                parts.append(self.pick([f"My order number is {order}", f"Order {order}", f"The order is {order}", f"Order number: {order}", f"See order #{order}"]))
        opener = self.pick(["", "", "Sadly, ", "The problem: ", "The trouble is that ", "My question: ", "Now ", "To be short, "])
        ending = "?" if topic == "question" and self.maybe(0.8) else "."
        parts.append(f"{opener}{problem}{ending}")
        if "request" in stated:
            parts.append(self.pick([f"Please send me a {request}", f"I would like a {request}", f"I am asking for a {request}", f"Could you arrange a {request}", f"Please let me have a {request}", f"What I want is a {request}"]))
        for _ in range(self.pick([0, 0, 1, 1, 2, 3])):
            parts.insert(self.rng.randrange(len(parts) + 1), prose.english(self) if self.wide and self.maybe(0.6) else self.pick([
                f"I have waited for {self.number(2, 30)} days", f"My {self.pick(words.WORDS)} is {self.pick(words.MODIFIERS)}", "I have been a customer for years", f"The {self.pick(words.WORDS)} {self.pick(words.VERBS)} the {self.pick(words.WORDS)}",
                "I tried it three times", f"This is my {self.pick(['first', 'second', 'third', 'last'])} message", "Thank you for your help", f"I need it for {self.pick(words.CUES[department])}", f"I called you on the {self.number(1, 28)}th", "It was a gift"]))
        body = " ".join(part if part.endswith((".", "?")) else part + "." for part in map(capital_plain_problem, parts))
        name_at = self.rng.random()
        if "customer" in stated:
            if name_at < 0.4:
                text = self.pick([f"Hello, my name is {customer}. {body}", f"{customer} here. {body}", f"Hi, this is {customer}. {body}", f"Dear team, I am {customer}. {body}"])
            elif name_at < 0.5:
                text = f"From: {customer}\n\n{body}"
            else:
                text = self.pick([f"Hello, {body}\n\nRegards,\n{customer}", f"{body}\n\n{customer}", f"{body} Best wishes, {customer}", f"Hi! {body} Yours, {customer}"])
        else:
            text = self.pick([body, f"Hello, {body}", f"Hi! {body}"])
        text, values = unmark(text)
        return {"kind": "ticket", "language": "en", "text": text, "label": topic, "fields": {field: values.get(field) for field in TICKET_FIELDS}}


def capital_plain_problem(part):
    """A sentence starts with a capital, but a marked problem keeps its own letters: its value is read from the text."""
    return part if part.startswith("⟦problem") else capital(part)


def summary(row):
    """The one line that says what a product is, or what a ticket wants."""
    fields = row["fields"]
    if row["kind"] == "ticket":
        about = f" ({fields['product']})" if fields["product"] else ""
        wish = f"; wants: {fields['request']}" if fields["request"] else ""
        return f"{fields['customer'] or 'A customer'}: {fields['problem']}{about}{wish}."
    return f"{fields['product']}: {shop.first_sentence(row['text'])}"


def seo(row):
    """Title and meta description of a product's page, both in the document's own words."""
    return {"title": row["text"].split("\n")[0], "description": shop.first_sentence(row["text"])}


def turn(row, task):
    """The user's message of a task over a document, and its answer."""
    if task == "facts":
        return f"{row['kind']}: {row['text']}", compact(row["fields"])
    if task == "label":
        return f"{'department' if row['kind'] == 'product' else 'topic'}: {row['text']}", row["label"]
    if task == "summary":
        return f"summary: {row['text']}", summary(row)
    return f"seo: {row['text']}", compact(seo(row))


def copying(writer):
    """Random names and numbers to repeat or to find: what teaches a small model to copy at all."""
    rng = writer.rng
    items = [rng.choice([writer.name, lambda: words.order_number(rng, writer.evaluation), writer.measure, writer.weight, lambda: writer.name().lower(),
                         lambda: rng.choice(words.WORDS)])() for _ in range(rng.randint(2, 9))]
    if rng.random() < 0.5:
        return "copy: " + " ".join(items), compact(" ".join(items))
    keys = rng.sample(words.WORDS[:40] + words.THINGS[:20], len(items))
    asked = rng.randrange(len(items))
    return f"find {keys[asked]}: " + ", ".join(f"{key} is {item}" for key, item in zip(keys, items)), compact({keys[asked]: items[asked]})


def rows(seed, count, copy_share, evaluation=False, wide=0.0):
    """Turns of all tasks, mixed: `copy_share` of them are plain copying, and `wide` of the older documents hold prose."""
    writer = Writer(seed, evaluation)
    for _ in range(count):
        writer.wide = writer.maybe(wide)
        if writer.maybe(copy_share):
            yield copying(writer)
            continue
        if writer.maybe(0.01) and not evaluation:
            # The content-free document by which label scores are corrected: it says nothing, so any label is as good.
            row = writer.pick([writer.product, writer.ticket])()
            yield turn(row | {"text": "N/A"}, "label")
            continue
        if writer.maybe(0.25):
            row = writer.shop_ticket() if writer.maybe(0.5) else writer.ticket()
            yield turn(row, writer.rng.choices(["facts", "label", "summary"], [0.5, 0.25, 0.25])[0])
            continue
        task = writer.rng.choices(["facts", "label", "summary", "seo"], [0.56, 0.12, 0.14, 0.18])[0]
        # A department needs a text that gives it away. The older templates take the material of a part for that of the thing.
        row = writer.product() if task == "label" and writer.maybe(0.6) else writer.shop_product()
        while task == "label" and not row["label"]:
            row = writer.shop_product()
        if task == "label" and writer.maybe(0.2):
            row["text"] = row["text"].split("\n")[0]
        yield turn(row, task)
