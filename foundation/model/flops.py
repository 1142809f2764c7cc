"""Operations of a training step, counted from the shape."""

from foundation.model.config import ModelConfig


def flops_per_token(cfg: ModelConfig, seq_len: int, predictions: float, read: float = 1.0) -> float:
    """Multiplications and additions for one token, forward and backward (three times forward; Kaplan et al. 2020, 2.1).

    Per layer: qkv and output 4·D², feed-forward 2 or 3 matrices of D·F, scores and mixing 2·L·D, L = seq_len (an upper bound
    for shorter rows). predictions: words predicted from the vocabulary for each token that is read, each a dense product and one
    with the embeddings. read: share of the tokens whose states are read, for which alone the last layer goes on behind its
    attention (Encoder.forward). A multiplication and an addition count two.
    """
    matrices = 3 if cfg.is_gated else 2
    behind = cfg.width**2 + matrices * cfg.width * cfg.ffn_width
    layer = 3 * cfg.width**2 + 2 * seq_len * cfg.width + behind
    head = predictions * (cfg.width**2 + cfg.width * cfg.vocab_size)
    return 3 * 2 * (cfg.layers * layer - (1 - read) * behind + head)
