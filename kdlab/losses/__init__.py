"""What a student is asked to match: what its teacher answers (`logits`), and what goes on inside it (`inside`)."""

from .inside import attention_kl, attention_mse, cls_direction_mse, cosine, hidden_mse, scores, value_relation
from .logits import (
    distillation,
    ensemble,
    kl,
    label,
    logit_matching,
    share,
    soft_targets,
    softened,
    temperature,
    two_terms,
    wide,
)

__all__ = [
    "attention_kl",
    "attention_mse",
    "cosine",
    "distillation",
    "ensemble",
    "hidden_mse",
    "kl",
    "label",
    "logit_matching",
    "cls_direction_mse",
    "scores",
    "share",
    "soft_targets",
    "softened",
    "temperature",
    "two_terms",
    "value_relation",
    "wide",
]
