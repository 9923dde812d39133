"""Greedy decoding under the rules of strict extraction, for the evaluation: a string is a span of the document.

A span is made of whole words, and a number keeps to its unit; integers are those of the text; `null` is allowed where the
schema allows it. With `units`, `size` takes only lengths and volumes, and `weight` only masses.
"""

import math
import re

import torch

UNITS = """mm cm m km metre metres meter meters centimetre centimetres millimetre millimetres in inch inches ft feet foot yd l L ml cl dl litre litres liter liters oz lb lbs g kg mg gram grams kilo
    kilos kilogram kilograms t W kW V A mA mAh Ah Wh kWh Nm N daN lumens lux hPa bar psi Hz kHz MHz GHz dB dpi ppm rpm GB TB MB Mbit/s MB/s % °C °F degrees gsm g/m² kg/m² m² cm² m³ denier micron fps
    megapixels kcal cal K kW h hours hour minutes minute min seconds years year months weeks days momme pixels bit""".split()
LENGTH = r"(?:mm|cm|m|km|metres?|meters?|centimetres?|millimetres?|in|inch|inches|ft|feet|foot|yd)"
VOLUME = r"(?:l|L|ml|cl|dl|litres?|liters?|fl oz)"
MASS = r"(?:g|kg|mg|grams?|kilos?|kilograms?|lbs?|oz)"
NUMBER = r"\d+(?:[.,/]\d+)*"
PIECE = re.compile(rf"{NUMBER}(?:[ -]?(?:fl oz|{'|'.join(re.escape(unit) for unit in sorted(UNITS, key=len, reverse=True))})(?![\w/²³]))?[\w+-]*|[^\W\d](?:[\w'’&/+-]*[\w²³+])?|&")
ROLES = {"size": re.compile(rf".*\d[ -]?(?:{LENGTH}|{VOLUME})"), "weight": re.compile(rf".*\d[ -]?{MASS}")}
MOST = {"product": 80, "brand": 60, "material": 40, "color": 30, "size": 40, "weight": 20, "customer": 60, "order": 20, "problem": 100, "request": 40}


def pieces(text):
    """Where the words of a text are; a number and its unit are one."""
    return [match.span() for match in PIECE.finditer(text)]


def spans(text, most, role=None):
    """The spans of whole words, within one line."""
    found, places = set(), pieces(text)
    for first, (start, _) in enumerate(places):
        for _, end in places[first:]:
            if end - start > most or "\n" in text[start:end]:
                break
            if role is None or role.fullmatch(text[start:end]):
                found.add(text[start:end])
    return found


def integers(text):
    return {str(int(match)) for match in re.findall(r"(?<![\d.,])\d+(?![.,]?\d)", text) if 1 <= int(match) <= 100000}


class Decoder:
    """One document after the other, with the keys given and the values chosen among what the document holds."""

    def __init__(self, writer):
        self.model, self.tokenizer, self.prompt = writer.model, writer.tokenizer, writer.prompt

    def ids(self, text):
        return self.tokenizer(text, add_special_tokens=False).input_ids

    def tree(self, values):
        """The values as a tree of tokens; None marks an end."""
        root = {}
        for value in values:
            node = root
            for token in self.ids(value):
                node = node.setdefault(token, {})
            node[None] = {}
        return root

    @torch.inference_mode()
    def facts(self, message, text, fields, units=False):
        """The extraction and how certain the decoder was of each value."""
        past, pending = None, self.ids(self.prompt(message) + '{"')
        quote, nothing = self.ids('"')[0], self.ids("null")[0]
        answer, certain = {}, {}

        def choose(allowed):
            """The likeliest token of those allowed, and its share among them."""
            nonlocal past, pending
            out = self.model(torch.tensor([pending]), past_key_values=past, use_cache=True)
            past, scores = out.past_key_values, out.logits[0, -1, allowed].log_softmax(-1)
            best = int(scores.argmax())
            pending = [allowed[best]]
            return allowed[best], float(scores[best])

        for at, field in enumerate(fields):
            last = at + 1 == len(fields)
            pending = pending + self.ids(f'{field}":')[:]
            number = field == "pieces"
            tree = self.tree(integers(text) if number else spans(text, MOST[field], ROLES.get(field) if units else None))
            opening = [token for token in tree if token is not None] if number else [quote] if tree else []
            first, score = choose(opening + ([] if field == "product" and "pieces" in fields else [nothing]))
            if first == nothing:
                answer[field], certain[field] = None, math.exp(score)
                pending = [nothing] + self.ids("}" if last else ',"')
                continue
            close = self.ids("}" if last else ',"')[0] if number else self.ids('"}' if last else '","')[0]
            node, made = (tree[first], [first]) if number else (tree, [])
            while True:
                options = [close if token is None else token for token in node]
                token, step = choose(options)
                score += step
                if token == close and None in node:
                    break
                made.append(token)
                node = node[token]
            value = self.tokenizer.decode(made)
            answer[field], certain[field] = int(value) if number else value, math.exp(score)
        return answer, certain
