"""Operations of a training step, counted from the shape."""

from foundation.model.config import FeedForward, ModelConfig


def flops_per_token(cfg: ModelConfig, seq_len: int, predictions: float) -> float:
    """Multiplications and additions for one token, forward and backward (three times forward; Kaplan et al. 2020, 2.1).

    Per layer: qkv and output 4·D², feed-forward 2 or 3 matrices of D·F, scores and mixing 2·L·D, L = seq_len (an upper bound
    for shorter rows). predictions: words predicted from the vocabulary for each token that is read, each a dense product and one
    with the embeddings. A multiplication and an addition count two.
    """
    matrices = 3 if cfg.feed_forward is FeedForward.geglu else 2
    layer = 4 * cfg.width**2 + matrices * cfg.width * cfg.ffn_width + 2 * seq_len * cfg.width
    head = predictions * (cfg.width**2 + cfg.width * cfg.vocab_size)
    return 3 * 2 * (cfg.layers * layer + head)
