"""What a session says of its run before the first step."""

from typing import TYPE_CHECKING

from foundation.core import distributed
from foundation.pretraining.resume import dropout_changes

if TYPE_CHECKING:
    from foundation.pretraining.session import Session

# Of the training tokens; English has a thirtieth of it.
_MUCH_UNKNOWN = 0.01
# Of the documents that were read; more says that a file was named twice, or that its lines were taken for documents.
_MANY_DROPPED = 0.1


def announce(session: "Session") -> None:
    """Text, model, steps and device; and what the user should know before hours go by."""
    cfg, batches, manifest = session.cfg, session.cfg.batches, session.corpus.manifest
    n_parameters = sum(parameter.numel() for parameter in session.objective.parameters())
    rows = (
        f"{batches.rows_per_step}" if batches.ramp_from is None else f"{batches.ramp_from} to {batches.rows_per_step}"
    )
    epochs = session.total_steps * batches.mean_rows / len(session.batches)
    session.logger.say(
        f"{cfg.name}: {manifest['train']['tokens']:,} training tokens, unigram entropy {session.unigram_nats:.2f} nats; "
        f"{n_parameters:,} parameters; steps {session.state.step} to {session.total_steps} of {rows} rows ({epochs:.3g} epochs), "
        f"on {session.device.type} in {cfg.trainer.precision.value}, {session.passes}"
    )
    if session.beginning is not None:
        shape, name = session.beginning.model, session.beginning.info.get("name", cfg.init)
        drawn = f"; heads drawn anew: {', '.join(session.fresh_heads)}" if session.fresh_heads else ""
        session.logger.say(
            f"it began with {name} ({session.beginning.fingerprint}): {shape.layers} layers of {shape.width}, "
            f"{shape.vocab_size:,} entries, whatever else model and tokenizer say{drawn}"
        )
    kept, dropped = sum(manifest["documents_per_source"].values()), manifest["duplicates_dropped"]
    if dropped > _MANY_DROPPED * (kept + dropped):
        session.logger.say(
            f"warning: {dropped:,} of {kept + dropped:,} documents are copies of earlier ones, and were left out"
        )
    if (unknown := manifest.get("unknown_share", 0.0)) > _MUCH_UNKNOWN:
        session.logger.say(
            f"warning: {unknown:.1%} of the training tokens are [UNK], in place of characters that the tokenizer does not "
            "know: give it a larger tokenizer.vocab_size, or take tokenizer=bpe_8k or bpe_32k, which spell everything"
        )
    if max(cfg.model.dropout, cfg.model.attention_dropout) > 0:
        _say_what_dropout_depends_on(session)


def _say_what_dropout_depends_on(session: "Session") -> None:
    ranks, micro_batch_rows = distributed.world_size(), session.cfg.trainer.micro_batch_rows
    if ranks > 1 or micro_batch_rows:
        session.logger.say(
            f"dropout is drawn per rank and micro-batch: the number of ranks ({ranks}) and micro_batch_rows "
            f"({micro_batch_rows}) are part of the result"
        )
    if distributed.is_main() and session.state.step and (changes := dropout_changes(session.run)):
        session.logger.say(
            f"from step {session.state.step} on, dropout's masks are not those of the run so far: {'; '.join(changes)}"
        )
