"""The generator's tokenizer, and turns of the chat as ids."""

import json
import random

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

import corpus

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
VOCABULARY = 2560
DECISION = 4.0
# A string between JSON's quotes must be the same tokens as in the text, or copying it means translating it: so quotes,
# spaces, digits, Hangul syllables and words each stand alone, and only JSON's own punctuation may join up.
SPLIT = '\\{"|","|,"|":|"\\}|"|[0-9]|[가-힣]|[A-Za-z]+|[.,;:!?] ?| |\\n'
CHAT_TEMPLATE = (
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)


def train(seed, rows=30000):
    """A byte-level BPE tokenizer of the corpus: any UTF-8 goes in and comes out again."""
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(SPLIT), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator((text for turn in corpus.rows(seed, rows, 0.0) for text in turn), trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return tokenizer


class Turns:
    """Batches of ids and loss weights, for ever, from a seed."""

    def __init__(self, tokenizer, seed, prompt_weight=0.2, evaluation=False):
        self.tokenizer, self.seed, self.prompt_weight, self.evaluation = tokenizer, seed, prompt_weight, evaluation
        self.start, self.end = tokenizer.token_to_id("<|im_start|>"), tokenizer.token_to_id("<|im_end|>")
        encode = lambda text: tokenizer.encode(text).ids
        self.colon, self.quote = tokenizer.token_to_id('":'), tokenizer.token_to_id('"')
        self.newline, self.user, self.assistant = encode("\n"), encode("user\n"), encode("assistant\n")

    def framed(self, message, answer, boost=1.0):
        prompt = [self.start, *self.user, *message, self.end, *self.newline, self.start, *self.assistant]
        ids = prompt + answer + [self.end] + self.newline
        weights = [self.prompt_weight] * len(prompt) + [boost] * (len(answer) + 1) + [0.0]
        # Which value a key gets, or none, is decided in the one or two tokens behind its colon; the rest is copying.
        for at, token in enumerate(answer):
            if token == self.colon:
                weights[len(prompt) + at + 1] = DECISION
                if at + 2 < len(answer) and answer[at + 1] == self.quote:
                    weights[len(prompt) + at + 2] = DECISION
        return ids, weights

    def chunk(self, number, count, copy_share, wide=0.0):
        """One chunk of turns as ids and weights."""
        rng = random.Random(f"{self.seed}/{number}")
        turns = list(corpus.rows(f"{self.seed}/{number}", count, copy_share, self.evaluation, wide))
        messages = self.tokenizer.encode_batch([message for message, _ in turns])
        answers = self.tokenizer.encode_batch([answer for _, answer in turns])
        # A label is one token: it would drown beside JSON.
        framed = [self.framed(message.ids, answer.ids, 30.0 if len(answer.ids) < 4 else 1.0) for message, answer in zip(messages, answers)]
        # Ids drawn at random make every row of the embedding one that can be copied, seen in the corpus or not.
        head, limit = self.tokenizer.encode("copy: ").ids, self.tokenizer.get_vocab_size()
        for _ in range(int(count * copy_share * 0.2)):
            ids = [rng.randrange(len(SPECIAL), limit) for _ in range(rng.randint(4, 30))]
            framed.append(self.framed(head + ids, ids))
        rng.shuffle(framed)
        return framed


def save(tokenizer, folder):
    """The tokenizer's files as Hugging Face has them."""
    tokenizer.save(str(folder / "tokenizer.json"))
    added = {str(tokenizer.token_to_id(token)): {"content": token, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True} for token in SPECIAL}
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast", "added_tokens_decoder": added, "additional_special_tokens": ["<|im_start|>", "<|im_end|>"], "bos_token": None, "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>", "unk_token": None, "model_max_length": 1024, "clean_up_tokenization_spaces": False, "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, ensure_ascii=False, indent=2) + "\n")
