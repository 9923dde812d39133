"""The generator's network: Qwen3's, under the names of its published weights, so that a state dict is a model file."""

import torch
import torch.nn.functional as F
from torch import nn

CONFIG = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "hidden_act": "silu",
    "max_position_embeddings": 1024,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "use_sliding_window": False,
    "initializer_range": 0.02,
    "tie_word_embeddings": True,
    "use_cache": True,
    "torch_dtype": "float16",
}


class Norm(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x):
        x = x.float()
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + CONFIG["rms_norm_eps"]))


def rotate(x, cos, sin):
    half = x.shape[-1] // 2
    return x * cos + torch.cat((-x[..., half:], x[..., :half]), -1) * sin


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        hidden, self.size = CONFIG["hidden_size"], CONFIG["head_dim"]
        self.heads, self.shared = CONFIG["num_attention_heads"], CONFIG["num_key_value_heads"]
        self.q_proj = nn.Linear(hidden, self.heads * self.size, bias=False)
        self.k_proj = nn.Linear(hidden, self.shared * self.size, bias=False)
        self.v_proj = nn.Linear(hidden, self.shared * self.size, bias=False)
        self.o_proj = nn.Linear(self.heads * self.size, hidden, bias=False)
        self.q_norm, self.k_norm = Norm(self.size), Norm(self.size)

    def forward(self, x, cos, sin):
        rows, length, _ = x.shape
        split = lambda y: y.view(rows, length, -1, self.size).transpose(1, 2)
        queries = rotate(self.q_norm(split(self.q_proj(x))), cos, sin)
        keys = rotate(self.k_norm(split(self.k_proj(x))), cos, sin)
        values = split(self.v_proj(x))
        group = self.heads // self.shared
        keys, values = keys.repeat_interleave(group, 1), values.repeat_interleave(group, 1)
        # Written out rather than scaled_dot_product_attention: compiled, this is three times as fast on a CPU at these lengths.
        scores = (queries.to(values.dtype) @ keys.to(values.dtype).mT).float() * self.size**-0.5
        future = torch.ones(length, length, dtype=torch.bool).triu(1)
        mixed = scores.masked_fill(future, -1e30).softmax(-1).to(values.dtype) @ values
        return self.o_proj(mixed.transpose(1, 2).reshape(rows, length, -1))


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        hidden, inner = CONFIG["hidden_size"], CONFIG["intermediate_size"]
        self.gate_proj = nn.Linear(hidden, inner, bias=False)
        self.up_proj = nn.Linear(hidden, inner, bias=False)
        self.down_proj = nn.Linear(inner, hidden, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.self_attn, self.mlp = Attention(), Mlp()
        self.input_layernorm, self.post_attention_layernorm = Norm(CONFIG["hidden_size"]), Norm(CONFIG["hidden_size"])

    def forward(self, x, cos, sin):
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class Body(nn.Module):
    def __init__(self, vocabulary):
        super().__init__()
        self.embed_tokens = nn.Embedding(vocabulary, CONFIG["hidden_size"])
        self.layers = nn.ModuleList(Layer() for _ in range(CONFIG["num_hidden_layers"]))
        self.norm = Norm(CONFIG["hidden_size"])


class Writer(nn.Module):
    def __init__(self, vocabulary):
        super().__init__()
        self.model = Body(vocabulary)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                into_residual = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(weight, std=0.02 / (2 * CONFIG["num_hidden_layers"]) ** 0.5 if into_residual else 0.02)
        frequency = 1 / CONFIG["rope_theta"] ** (torch.arange(0, CONFIG["head_dim"], 2) / CONFIG["head_dim"])
        angle = torch.outer(torch.arange(CONFIG["max_position_embeddings"]), frequency).repeat(1, 2)
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)

    def forward(self, ids):
        x = self.model.embed_tokens(ids)
        cos, sin = self.cos[: ids.shape[1]], self.sin[: ids.shape[1]]
        for layer in self.model.layers:
            x = layer(x, cos, sin)
        return F.linear(self.model.norm(x), self.model.embed_tokens.weight)

    def loss(self, ids, weights):
        """Cross entropy of each next token, weighted; the sum, so that parts of a batch add up."""
        logits = self(ids[:, :-1])
        losses = F.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="none")
        return (losses * weights[:, 1:].flatten()).sum()


def orthogonal(momentum):
    """The nearest matrix with equal singular values, for a stack of them: Newton and Schulz's iteration, as Muon uses it."""
    x = momentum.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return (x.mT if tall else x).float()


class Muon:
    """Momentum made orthogonal for the layers' matrices, stacked by shape; everything else is AdamW's."""

    def __init__(self, model, rate=0.02, embedding_rate=4e-3, momentum=0.95):
        self.rate, self.momentum = rate, momentum
        matrices = [weight for name, weight in model.named_parameters() if weight.dim() == 2 and "embed" not in name]
        others = [weight for name, weight in model.named_parameters() if weight.dim() != 2 or "embed" in name]
        shapes = sorted({tuple(weight.shape) for weight in matrices})
        self.groups = [[weight for weight in matrices if tuple(weight.shape) == shape] for shape in shapes]
        self.buffers = [torch.zeros(len(group), *group[0].shape) for group in self.groups]
        self.adam = torch.optim.AdamW(others, lr=embedding_rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
        self.embedding_rate = embedding_rate

    @torch.no_grad()
    def step(self, scale):
        for group, buffer in zip(self.groups, self.buffers):
            gradients = torch.stack([weight.grad for weight in group])
            buffer.lerp_(gradients, 1 - self.momentum)
            update = orthogonal(gradients.lerp(buffer, self.momentum))
            rows, columns = group[0].shape
            rate = self.rate * scale * max(1.0, rows / columns) ** 0.5
            for weight, change in zip(group, update):
                weight.mul_(1 - rate * 0.02).add_(change, alpha=-rate)
        for setting in self.adam.param_groups:
            setting["lr"] = self.embedding_rate * scale
        self.adam.step()

    def state(self):
        return {"buffers": self.buffers, "adam": self.adam.state_dict()}

    def load(self, state):
        for buffer, saved in zip(self.buffers, state["buffers"]):
            buffer.copy_(saved)
        self.adam.load_state_dict(state["adam"])
