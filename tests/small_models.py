"""Small models of many kinds, with weights drawn at random, and what the tests ask of each."""

import torch
import torchvision
import transformers
from torch import nn

from kdlab import metrics

SIZES = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 4, "num_labels": 3}
SIZES |= {"num_hidden_layers": 3, "pad_token_id": 0}


class Lstm(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.lstm, self.out = nn.Embedding(50, 8), nn.LSTM(8, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, x):
        return self.out(self.lstm(self.words(x))[0][:, -1])


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
        self.words, self.out = nn.Embedding(50, 16), nn.Linear(16, 3)
        self.encoder = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)

    def forward(self, x):
        return self.out(self.encoder(self.words(x)).mean(dim=1))


def of_transformers(kind, task="ForSequenceClassification", **settings):
    config = getattr(transformers, f"{kind}Config")(**SIZES | settings)
    return getattr(transformers, f"{kind}{task}")(config)


def gemma3():
    kinds = ["full_attention", "sliding_attention", "sliding_attention"]
    config = transformers.Gemma3TextConfig(**SIZES | HEADS, layer_types=kinds, sliding_window=3)
    return transformers.Gemma3ForCausalLM(config)


TOKENS = {"bos_token_id": 1, "eos_token_id": 2}
HEADS = {"num_key_value_heads": 2, "max_position_embeddings": 32, "head_dim": 4} | TOKENS
MODERN = {"global_attn_every_n_layers": 2, "local_attention": 4, "cls_token_id": 1, "sep_token_id": 2} | TOKENS
T5 = {"d_model": 16, "d_kv": 4, "d_ff": 32, "num_layers": 3, "num_heads": 4, "vocab_size": 50}
MODELS = {
    "bert": lambda: of_transformers("Bert"),
    "roberta": lambda: of_transformers("Roberta", max_position_embeddings=40),
    "electra": lambda: of_transformers("Electra", embedding_size=16),
    "distilbert": lambda: of_transformers("DistilBert", dim=16, hidden_dim=32),
    "albert": lambda: of_transformers("Albert", embedding_size=8),
    "modernbert": lambda: of_transformers("ModernBert", **MODERN),
    "gpt2": lambda: of_transformers("GPT2", n_positions=32, **TOKENS),
    "gpt2_lm": lambda: of_transformers("GPT2", "LMHeadModel", n_positions=32, **TOKENS),
    "llama": lambda: of_transformers("Llama", **HEADS),
    "gemma3": gemma3,
    "t5": lambda: transformers.T5EncoderModel(transformers.T5Config(**T5)),
    "vit": lambda: of_transformers("ViT", "ForImageClassification", image_size=8, patch_size=4),
    "resnet": lambda: torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=3),
    "lstm": Lstm,
    "encoder": Encoder,
}
LISTS = {"bert": "bert.encoder.layer", "roberta": "roberta.encoder.layer", "electra": "electra.encoder.layer"}
LISTS |= {"distilbert": "distilbert.transformer.layer", "modernbert": "model.layers", "gpt2": "transformer.h"}
LISTS |= {"gpt2_lm": "transformer.h", "llama": "model.layers", "gemma3": "model.layers", "t5": "encoder.block"}
LISTS |= {"vit": "vit.layers", "encoder": "encoder.layers"}  # name → its list of three layers


def model_and_input(kind):
    torch.manual_seed(0)
    model = MODELS[kind]().eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(0.15 * torch.randn_like(weight) + (0 if weight.dim() > 1 else weight))
    if kind in ("vit", "resnet"):
        return model, torch.randn(2, 3, 8, 8) if kind == "vit" else torch.randn(2, 3, 32, 32)
    return model, torch.randint(3, 50, (2, 7))


@torch.no_grad()
def answer(model, x):
    out = model(x)
    return out if isinstance(out, torch.Tensor) else out[0]


def linear(model):
    """Name → linear layer, each once; nn.MultiheadAttention reads the weight of its last one by itself."""
    return {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) or type(layer).__name__ == "Conv1D"
    }


def numbers(layers):
    return sum({id(layer.weight): layer.weight.numel() for layer in layers}.values())


def size(model):
    """Bytes of the weights, each counted once."""
    found = {
        weight.data_ptr() if not weight.is_quantized else weight: weight
        for weight in metrics.cost.weights(model).values()
    }
    return sum(weight.numel() * weight.element_size() for weight in found.values())


def near(a, b, share):
    return (a - b).abs().max() <= share * a.std()
