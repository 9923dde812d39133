"""What gpu.py measures on: made-up texts of a known length, requests, a Parquet file and a pipeline. Python's own library is enough."""

import json
import random
import struct

# Words that most vocabularies hold as one token, so that a text of n words has n tokens and the special ones.
WORDS = (
    "the of and to in a is that for it as was with be by on not he his but at are this have from or had an they which one you were all her she there would their we him "
    "been has when who will no more if out so up said what its about than into them can only other time new some could these two may first then do any like my now over such our "
    "man me even most made after also did many off before must well back through years where much your way down should because long each just state those people too mr how little good world "
    "make very year still see work own men day get here old between both life being under three never know same last another while us might great go come since against right came take used himself "
    "few house use place during high without again home around small however found mrs part school thought went say general once upon war every does got united left number course until always "
    "away something fact water less public put think almost hand enough far took head yet government system set better told nothing night end why called eyes find going look asked later knew point next city business"
).split()

LABELS = ["world", "sport", "business", "science", "weather", "music", "garden", "travel"]

SCHEMA = {
    "type": "object", "additionalProperties": False, "required": ["product", "maker", "colour", "pieces", "sold"],
    "properties": {
        "product": {"type": "string", "pattern": "^[a-z ]{24}$"}, "maker": {"type": "string", "pattern": "^[a-z ]{16}$"},
        "colour": {"type": "string", "pattern": "^[a-z]{8}$"}, "pieces": {"type": "integer", "minimum": 0, "maximum": 99999}, "sold": {"type": "boolean"},
    },
}
MOST_WRITTEN = 160

PIPELINE = """version: 1
name: gpu-news
source: {{ topic: documents.gpu-news, format: json, id: id, text: "{{{{ title }}}}\\n\\n{{{{ text }}}}" }}
tasks:
  topic:
    classify:
      model: minilm
      labels:
{labels}
  vector: {{ embed: {{ model: minilm }} }}
sinks: {{ postgres: {{}}, parquet: {{ dataset: results }} }}
budget: {{ max_wait: 500ms, max_tokens: 16384, max_records: 1024 }}
"""


def words_of(folder):
    """Those of WORDS that the model in `folder` has a token for; all of them where it knows hardly any, and tokens are counted anyway."""
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    known = set(vocabulary) if isinstance(vocabulary, dict) else {piece for piece, _ in vocabulary}
    single = [word for word in WORDS if word in known or f"\u2581{word}" in known]
    return single if len(single) > 64 else WORDS


def texts(words, count, length, seed):
    """`count` different texts of `length` words each, or of a length drawn from a pair."""
    rng = random.Random(seed)
    lengths = length if isinstance(length, tuple) else (length, length)
    return [" ".join(rng.choices(words, k=rng.randint(*lengths))) for _ in range(count)]


def conversations(count, prefix, own, seed):
    """Prompts that begin with the same `prefix` words and end with words of their own."""
    rules = "Read the document and answer with one word or one object. " + " ".join(texts(WORDS, 1, prefix, seed))
    documents = texts(WORDS, count, own, seed + 1)
    return [[{"role": "system", "content": rules}, {"role": "user", "content": document}] for document in documents]


def write_lines(path, lines):
    with path.open("w", encoding="utf-8") as file:
        for line in lines:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def pipeline():
    return PIPELINE.format(labels="\n".join(f"        {label}: news about {label} and what people said of it" for label in LABELS))


def write_parquet(path, columns, rows_of_group=8192):
    """Columns of required texts as a Parquet file: plain, uncompressed, one page a column and row group."""
    names, groups = list(columns), []
    total = len(columns[names[0]])
    with path.open("wb") as file:
        file.write(b"PAR1")
        for start in range(0, total, rows_of_group):
            count, chunks = min(rows_of_group, total - start), []
            for name in names:
                values = (value.encode() for value in columns[name][start : start + count])
                page = b"".join(struct.pack("<I", len(value)) + value for value in values)
                # PageHeader: a data page, its size twice, and { values, plain, and levels that a required column has none of }.
                header = structure([(1, I32, 0), (2, I32, len(page)), (3, I32, len(page)), (5, STRUCT, [(1, I32, count), (2, I32, 0), (3, I32, 3), (4, I32, 3)])])
                offset, size = file.tell(), len(header) + len(page)
                file.write(header + page)
                # ColumnMetaData: byte arrays, plain and RLE, where, not compressed, how many, how large, and where the first page is.
                about = [(1, I32, 6), (2, LIST, (I32, [0, 3])), (3, LIST, (BINARY, [name])), (4, I32, 0), (5, I64, count), (6, I64, size), (7, I64, size), (9, I64, offset)]
                chunks.append([(2, I64, offset), (3, STRUCT, about)])
            groups.append([(1, LIST, (STRUCT, chunks)), (2, I64, sum(chunk[1][2][5][2] for chunk in chunks)), (3, I64, count)])
        # SchemaElement: the root with its children, then each column as a required byte array that holds UTF-8.
        schema = [[(4, BINARY, "rows"), (5, I32, len(names))]] + [[(1, I32, 6), (3, I32, 0), (4, BINARY, name), (6, I32, 0)] for name in names]
        footer = structure([(1, I32, 1), (2, LIST, (STRUCT, schema)), (3, I64, total), (4, LIST, (STRUCT, groups)), (6, BINARY, "tidemill's bench")])
        file.write(footer + struct.pack("<I", len(footer)) + b"PAR1")


# The types of Thrift's compact protocol that Parquet's metadata is written in.
I32, I64, BINARY, LIST, STRUCT = 5, 6, 8, 9, 12


def varint(number):
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def value(kind, given):
    if kind in (I32, I64):
        return varint(given << 1 if given >= 0 else (-given << 1) - 1)
    if kind == BINARY:
        return varint(len(given.encode())) + given.encode()
    if kind == STRUCT:
        return structure(given)
    of, members = given
    size = bytes([len(members) << 4 | of]) if len(members) < 15 else bytes([0xF0 | of]) + varint(len(members))
    return size + b"".join(value(of, member) for member in members)


def structure(fields):
    out, last = bytearray(), 0
    for number, kind, given in fields:
        # Fields are numbered by their distance from the one before, which Parquet's never exceed.
        out += bytes([number - last << 4 | kind]) + value(kind, given)
        last = number
    return bytes(out) + b"\0"
