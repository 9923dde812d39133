#!/usr/bin/env python3
"""Random weights in the shape of Qwen2.5-0.5B, to time decoders with: `python make_shape.py FOLDER [--gguf bf16 q8_0]`; with `--encoder`
in the shape of all-MiniLM-L6-v2, to time encoders with.

    pip install torch==2.15.0 transformers==5.23.0 tokenizers==0.23.3 gguf==0.19.0

Writes a Hugging Face folder of about 1 GB (bf16) and, where asked, `model-<format>.gguf` with the same weights in it for
llama.cpp. Speed does not depend on what weights say. It does depend on the vocabulary, above all where output is
constrained: so the tokenizer has 151,665 tokens too, made of letters joined systematically, and any UTF-8 goes through it.
The encoder's has 30,522: the words of `material.py`, and letters joined systematically, at the beginning of words and within.
"""

import argparse
import itertools
import json
import pathlib
import random
import string
import sys

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

GENERATORS = pathlib.Path(__file__).resolve().parent.parent / "fixtures" / "generators"
sys.path.insert(0, str(GENERATORS))
sys.dont_write_bytecode = True

import tokenizers_of  # noqa: E402

import material  # noqa: E402

SEED = 5
ORDINARY = 151643
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>",
           "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"]
ADDED = ["<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>"]
CONFIG = {
    "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2,
    "max_position_embeddings": 32768, "max_window_layers": 21, "sliding_window": 32768, "use_sliding_window": False, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "tie_word_embeddings": True,
    "hidden_act": "silu", "attention_dropout": 0.0, "initializer_range": 0.02, "use_cache": True, "torch_dtype": "bfloat16", "vocab_size": 151936, "bos_token_id": 151643, "eos_token_id": 151645,
}


def tokenizer():
    """A byte-level BPE of the full size: all pairs and triples of letters, then fours drawn at random, with and without a space."""
    rng = random.Random(SEED)
    letters = string.ascii_lowercase
    vocabulary = {letter: at for at, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merges = []

    def merge(left, right):
        if left + right not in vocabulary and len(vocabulary) < ORDINARY:
            vocabulary[left + right] = len(vocabulary)
            merges.append((left, right))

    pairs = ["".join(pair) for pair in itertools.product(letters, repeat=2)]
    for pair in pairs:
        merge(*pair)
    for pair in pairs:
        merge("Ġ", pair)
    for letter in letters:
        merge("Ġ", letter)
    for pair, letter in itertools.product(pairs, letters):
        merge(pair, letter)
    while len(vocabulary) < ORDINARY:
        merge(rng.choice(["", "Ġ"]) + rng.choice(pairs), rng.choice(pairs))
    built = Tokenizer(models.BPE(vocabulary, merges))
    built.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(tokenizers_of.WORDS.format(digits="")), "isolated")
    built.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)])
    built.decoder = decoders.ByteLevel()
    built.post_processor = processors.ByteLevel(trim_offsets=False)
    built.add_tokens([AddedToken(token, normalized=False, special=token in SPECIAL) for token in SPECIAL + ADDED])
    return built


def weights():
    generator = torch.Generator().manual_seed(SEED)
    hidden, inner, head = CONFIG["hidden_size"], CONFIG["intermediate_size"], CONFIG["hidden_size"] // CONFIG["num_attention_heads"]
    shared = CONFIG["num_key_value_heads"] * head
    drawn = lambda *shape: (torch.randn(shape, generator=generator) * CONFIG["initializer_range"]).bfloat16()
    ones = lambda: torch.ones(hidden, dtype=torch.bfloat16)
    state = {"model.embed_tokens.weight": drawn(CONFIG["vocab_size"], hidden), "model.norm.weight": ones()}
    for layer in range(CONFIG["num_hidden_layers"]):
        at = f"model.layers.{layer}"
        for name, rows in (("q", hidden), ("k", shared), ("v", shared)):
            state[f"{at}.self_attn.{name}_proj.weight"], state[f"{at}.self_attn.{name}_proj.bias"] = drawn(rows, hidden), drawn(rows)
        state[f"{at}.self_attn.o_proj.weight"] = drawn(hidden, hidden)
        state[f"{at}.mlp.gate_proj.weight"], state[f"{at}.mlp.up_proj.weight"], state[f"{at}.mlp.down_proj.weight"] = drawn(inner, hidden), drawn(inner, hidden), drawn(hidden, inner)
        state[f"{at}.input_layernorm.weight"], state[f"{at}.post_attention_layernorm.weight"] = ones(), ones()
    return state


ENCODER = {
    "architectures": ["BertModel"], "model_type": "bert", "vocab_size": 30522, "hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6, "num_attention_heads": 12, "max_position_embeddings": 512,
    "type_vocab_size": 2, "hidden_act": "gelu", "layer_norm_eps": 1e-12, "pad_token_id": 0, "position_embedding_type": "absolute", "initializer_range": 0.02,
}


def word_pieces():
    """A lower-casing WordPiece of the full size."""
    letters = string.ascii_lowercase
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters, *string.digits, *string.punctuation, *(f"##{letter}" for letter in letters), *material.WORDS]
    joined = ("".join(parts) for size in (2, 3, 4) for parts in itertools.product(letters, repeat=size))
    words += itertools.islice((start + part for part in joined for start in ("", "##")), 2 * ENCODER["vocab_size"])
    vocabulary = {word: at for at, word in enumerate(itertools.islice(dict.fromkeys(words), ENCODER["vocab_size"]))}
    built = Tokenizer(models.WordPiece(vocab=vocabulary, unk_token="[UNK]"))
    built.normalizer, built.pre_tokenizer, built.decoder = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    built.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])])
    special = [AddedToken(token, normalized=False, special=True) for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]")]
    built.add_special_tokens(special)
    return built


def make_encoder(folder):
    """A folder as sentence-transformers saves them: mean pooling, vectors of length 1, texts of at most 256 tokens."""
    import transformers

    word_pieces().save(str(folder / "tokenizer.json"))
    torch.manual_seed(SEED)
    transformers.BertModel(transformers.BertConfig(**ENCODER), add_pooling_layer=False).save_pretrained(folder)
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    files = {
        "config.json": ENCODER | {"torch_dtype": "float32"},
        "tokenizer_config.json": {"tokenizer_class": "BertTokenizerFast", "do_lower_case": True, "model_max_length": 256, "pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"},
        "modules.json": [{"idx": at, "name": str(at), "path": path, "type": f"sentence_transformers.models.{kind}"} for at, (path, kind) in enumerate(modules)],
        "sentence_bert_config.json": {"max_seq_length": 256, "do_lower_case": False},
        "1_Pooling/config.json": {"word_embedding_dimension": ENCODER["hidden_size"], "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True},
    }
    for name in ("1_Pooling", "2_Normalize"):
        (folder / name).mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--gguf", nargs="*", default=[], choices=["bf16", "q8_0"])
    parser.add_argument("--encoder", action="store_true")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.encoder:
        return make_encoder(options.folder)
    built = tokenizer()
    tokenizers_of.save(built, options.folder, "qwen2", None, "<|im_end|>", "<|endoftext|>")
    (options.folder / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    generation = {"bos_token_id": 151643, "do_sample": False, "eos_token_id": [151645, 151643], "pad_token_id": 151643}
    (options.folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    save_file(weights(), options.folder / "model.safetensors", metadata={"format": "pt"})
    if options.gguf:
        import gguf_of
        from transformers import AutoModelForCausalLM

        settings = json.loads((options.folder / "tokenizer_config.json").read_text())
        model = AutoModelForCausalLM.from_pretrained(options.folder, dtype=torch.float32)
        for mix in options.gguf:
            gguf_of.write(str(options.folder / f"model-{mix}.gguf"), model, built, settings, mix, read_back=False)


if __name__ == "__main__":
    main()
