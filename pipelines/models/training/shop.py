"""Products as shops describe them: the words of a fact also stand where they state something else.

A slot in upper case (`{M}`) is filled with a fact of the thing and marked for `corpus.unmark`; the same words come unmarked,
as those of a part, of what it fits, carries or is not. Most fields of most products are not stated, as in real shops.
"""

import re

import prose
import shop_words as shelf
import words

SLOT = re.compile(r"\{(\w+)\}")
LONGEST = 430
ROUND = [2, 3, 4, 5, 6, 8, 10, 12, 16, 18, 20, 24, 25, 30, 36, 40, 48, 50, 60, 72, 75, 80, 96, 100, 120, 144, 150, 200, 250, 300, 500, 1000]
LENGTH_UNITS = ["cm"] * 6 + ["mm", "mm", "m", "m", "inches", "in", "ft", "inch", "cm", "metres", "centimetres", "feet", "millimetres"]
VOLUME_UNITS = ["l", "l", "litres", "litres", "ml", "ml", "ml", "L", "litre", "cl", "fl oz", "liters"]
MASS_UNITS = ["g"] * 4 + ["kg"] * 4 + ["grams", "lb", "oz", "kilos", "kilograms"]


def number(writer, unit):
    """An amount that the unit may have: whole, decimal or round."""
    rng = writer.rng
    if unit in ("g", "ml", "mm", "grams", "millimetres"):
        return str(rng.choice([rng.randint(2, 99), rng.randint(1, 99) * 10, rng.choice([50, 75, 100, 125, 200, 250, 330, 350, 500, 750, 800])]))
    return rng.choice([str(rng.randint(2, 99)), str(rng.randint(1, 20)), f"{rng.randint(0, 30)}.{rng.randint(1, 9)}", f"{rng.randint(1, 9)}.{rng.randint(10, 99)}", str(rng.randint(10, 240))])


def length(writer):
    unit = writer.pick(LENGTH_UNITS)
    return f"{number(writer, unit)}{writer.pick([' ', ' ', ' ', ''])}{unit}" if unit != "inch" else f"{number(writer, unit)}{writer.pick([' ', '-'])}inch"


def dimensions(writer):
    unit = writer.pick(["cm", "cm", "cm", "mm", "m", "in"])
    cross = writer.pick([" x ", " x ", " x ", " × ", "x", " by "])
    return f"{cross.join(number(writer, unit) for _ in range(writer.pick([2, 2, 3])))}{writer.pick([' ', ' ', ''])}{unit}"


def volume(writer):
    unit = writer.pick(VOLUME_UNITS)
    return f"{number(writer, unit)}{writer.pick([' ', ' ', ' ', '-' if unit in ('litre', 'l') else ' '])}{unit}"


def mass(writer):
    unit = writer.pick(MASS_UNITS)
    return f"{number(writer, unit)}{writer.pick([' ', ' ', ' ', ''])}{unit}"


class Shelf:
    """Fills templates for one product, whose facts stay the same wherever they are told."""

    def __init__(self, writer):
        self.writer, pick = writer, writer.pick
        self.head = pick(shelf.HEADS)
        self.capacious = writer.maybe(0.35)
        material = lambda: f"{writer.name().lower()} {pick(['leather', 'wood', 'steel', 'cotton', 'wool'])}" if writer.maybe(0.03) else pick(shelf.MATERIALS)
        self.facts = {
            "material": material(), "color": pick(shelf.COLORS), "size": volume(writer) if self.capacious else pick([length, length, dimensions])(writer),
            "weight": mass(writer), "pieces": str(pick([pick(ROUND), writer.number(2, 60)])), "brand": writer.brand(),
        }
        parts = lambda: pick(shelf.HARDWARE)
        plural = lambda: (lambda part: part if part.endswith("s") else {"foot": "feet"}.get(part, part + "s"))(parts())
        thing = lambda: pick(shelf.THINGS) if not writer.maybe(0.15) else prose._noun(writer)
        self.fill = {
            "m": material, "c": lambda: pick(shelf.COLORS), "len": lambda: length(writer), "dims": lambda: dimensions(writer), "vol": lambda: volume(writer), "w": lambda: mass(writer),
            "part": parts, "parts": plural, "adj": lambda: pick(shelf.ADJECTIVES), "finish": lambda: pick(shelf.FINISHES), "verb": lambda: pick(shelf.VERBS), "bare": lambda: pick(shelf.BARE),
            "thing": thing, "things": lambda: (lambda noun: noun if noun.endswith("s") else noun + "s")(thing()), "thread": lambda: pick(["line", "thread", "cord", "rope", "ribbon", "wire"]),
            "place": lambda: pick(shelf.PLACES), "use": lambda: pick(shelf.USES), "people": lambda: pick(shelf.PEOPLE), "origin": lambda: pick(shelf.ORIGINS), "whole": lambda: pick(shelf.WHOLE),
            "accessory": lambda: pick(shelf.ACCESSORIES), "surfaces": lambda: pick(shelf.SURFACES), "counted": lambda: pick(shelf.COUNTED), "plural": lambda: pick(shelf.PLURALS),
            "int": lambda: str(writer.number(2, 60)), "big": lambda: str(writer.number(2, 99) * 10), "year": lambda: str(writer.number(1860, 2022)), "name": writer.name, "head": lambda: self.head,
            "odd": lambda: f"{pick([writer.number(2, 99), writer.number(1, 99) * 10, writer.decimal(), pick(['1,000', '2,000', '3,500', '12,000'])])}{pick([' ', ' ', ''])}{pick(shelf.UNITS)}",
            "nonsense": lambda: prose.english(writer), "other": lambda: pick(shelf.HEADS), "word": lambda: pick(shelf.NUMERALS),
        }
        for name, letter in zip(("material", "color", "size", "weight", "pieces", "brand"), "MCSWPB"):
            self.fill[letter] = lambda name=name: f"⟦{name}:{self.facts[name]}⟧"

    def tell(self, template):
        return SLOT.sub(lambda slot: self.fill[slot.group(1)](), template)

    def fact(self, field):
        """A sentence that states the field, and perhaps others that are not asked for, which stay consistent."""
        key = "volume" if field == "size" and self.capacious else field
        return self.tell(self.writer.pick(shelf.TRUE[key]))

    def distraction(self, field):
        return self.tell(self.writer.pick(shelf.ODD if field == "odd" else shelf.FALSE[field]))

    def plain(self):
        return self.tell(self.writer.pick(shelf.PLAIN))


def lowered(sentence):
    """A sentence as a part of a longer one, where its first word is no name and no measure."""
    if re.match(r"⟦brand|[A-Z]{2}|USB|[A-Z][a-z]+ (?:makes|has|guarantees|is a)\b", sentence):
        return sentence
    match = re.match(r"⟦\w+:", sentence)
    start = match.end() if match else 0
    return sentence[:start] + sentence[start : start + 1].lower() + sentence[start + 1 :]


def name_of(writer, page, department):
    """What the thing is called."""
    if department:
        noun = writer.pick(words.NOUNS[department])
    else:
        noun = page.head
        for _ in range(writer.pick([0, 1, 1, 1, 2])):
            noun = f"{writer.pick(shelf.MODIFIERS)} {noun}"
    if writer.maybe(0.06):
        noun = f"{writer.name().lower()} {noun.split()[-1]}"
    if writer.maybe(0.06):
        noun = f"{noun} '{writer.name()}{writer.pick(['', f' {writer.name()}', f' {writer.number(2, 90)}'])}'"
    return noun


def titled(writer, page, noun, stated):
    """A title, and the part of it that names the thing; what the title states need not be told again."""
    told = set()

    def has(field, chance):
        if field in stated - told and writer.maybe(chance):
            told.add(field)
            return True
        return False

    front = ""
    if has("material", 0.25):
        front = page.tell("{M} ")
    elif has("color", 0.15):
        front = page.tell("{C} ")
    elif writer.maybe(0.1):
        front = writer.pick(shelf.ADJECTIVES) + " "
    product = front + noun
    count = ""
    if "pieces" in stated and writer.maybe(0.1):
        count = page.tell(writer.pick(["Set of {P} ", "Pack of {P} ", "{P} "]))
        told.add("pieces")
        product += "" if product.endswith("s") else "s"
    lead = ""
    if not front and not count and not page.capacious and has("size", 0.06):
        page.facts["size"] = f"{writer.number(5, 60)}-{writer.pick(['inch', 'inch', 'cm'])}"
        lead = page.tell("{S} ")
    title = count + lead + product
    tails = []
    if has("size", 0.35):
        bare = writer.maybe(0.25)
        size = page.tell("{S}")
        if bare:
            title += f" {size}"
        else:
            tails.append(size)
    if has("pieces", 0.3) and not count:
        tails.append(page.tell(writer.pick(["set of {P}", "pack of {P}", "box of {P}", "{P} pieces", "{P} pcs", "{P} {plural}", "{P}-pack", "bag of {P}", "{P} pack"])))
    if has("weight", 0.2):
        tails.append(page.tell("{W}"))
    if has("color", 0.2):
        tails.append(page.tell("{C}"))
    if has("material", 0.15):
        tails.append(page.tell("{M}"))
    if writer.maybe(0.3):
        tails.insert(writer.rng.randrange(len(tails) + 1), writer.pick(shelf.TAILS))
    if writer.maybe(0.06):
        tails.append(page.distraction(writer.pick(["material", "odd", "size", "pieces", "weight", "color"])))
    if not lead and writer.maybe(0.15):
        title += page.tell(writer.pick([" with {part}", " with {adj} {part}", " with {accessory}", " for {use}", " for {people}", " for {place}", " with {m} {part}", " and {accessory}"]))
    if writer.maybe(0.03):
        title += page.tell(writer.pick([" {odd}", " {name} {int}", " A5", " 4K", " 75 %"]))
    separator = writer.pick([", ", ", ", ", ", ", ", " - ", " | ", " ("])
    if tails:
        title += f" ({', '.join(tails)})" if separator == " (" else separator + (", " if separator == ", " else writer.pick([", ", separator])).join(tails)
    if has("brand", 0.25):
        title += page.tell(writer.pick([" by {B}", " by {B}", ", {B}", " from {B}"]))
    return title, product, told


def product(writer, capital, unmark, department=None):
    """A product of a shop: its text and its fields."""
    page = Shelf(writer)
    noun = name_of(writer, page, department)
    chances = {"material": 0.45, "color": 0.2, "size": 0.5, "weight": 0.3, "pieces": 0.2, "brand": 0.12}
    stated = {field for field, chance in chances.items() if writer.maybe(chance)}
    title, name, told = titled(writer, page, noun, stated)
    parts = [page.fact(field) for field in sorted(stated - told)]
    parts += [page.distraction(field) for field in ("material", "color", "size", "weight", "pieces", "brand", "odd") if writer.maybe({"material": 0.45, "size": 0.4, "odd": 0.4, "weight": 0.3, "pieces": 0.35}.get(field, 0.12))]
    parts += [page.plain() for _ in range(writer.pick([0, 1, 1, 2, 2, 3, 4, 5]))]
    if department:
        parts.append(f"{writer.pick(['For', 'Good for', 'Made for', 'Think of', 'At home with'])} {writer.pick(words.CUES[department])}")
    writer.rng.shuffle(parts)
    parts = parts[:11] or [page.plain()]
    sentences = []
    while parts:
        sentence = parts.pop()
        while parts and writer.maybe(0.33):
            sentence += writer.pick([", ", ", ", ", ", "; ", ": ", " and "]) + lowered(parts.pop())
        sentences.append(sentence)
    style = writer.rng.random()
    title = capital(title)
    title_case = style > 0.94
    if title_case:
        title = re.sub(r"(?<![\w⟦:'])[a-z](?=[a-z]{3})", lambda match: match.group().upper(), title)
    while True:
        if style < 0.03 and len(sentences) > 1:
            body = f"{capital(sentences[0])}.\n- " + "\n- ".join(capital(sentence) for sentence in sentences[1:])
        else:
            body = ". ".join(capital(sentence) for sentence in sentences) + writer.pick([".", ".", ".", ".", ".", ".", "!"])
        text, values = unmark(f"{title}\n\n{body}")
        if len(text) <= LONGEST or len(sentences) == 1:
            break
        sentences.pop(writer.rng.randrange(len(sentences)))
    # The name as it stands in the title, in the title's own letters.
    start = unmark(title)[0].lower().find(unmark(name)[0].lower())
    named = text[start : start + len(unmark(name)[0])]
    return text, values, named


def first_sentence(text):
    """The first sentence of the description, letter for letter."""
    body = text.split("\n\n", 1)[1] if "\n\n" in text else text
    match = re.match(r".+?[.!?](?=\s|$)", body.split("\n")[0])
    return match.group() if match else body.split("\n")[0]
