"""Names of the metrics that plots and summaries look for. Losses are in nats a target."""

STEP = "step"

TRAIN_LOSS = "train/loss"
TRAIN_MLM_LOSS = "train/mlm_loss"

EVAL_MLM_LOSS = "eval/mlm_loss"
EVAL_MLM_ACCURACY = "eval/mlm_accuracy"
EVAL_NSP_LOSS = "eval/nsp_loss"
EVAL_NSP_ACCURACY = "eval/nsp_accuracy"
EVAL_SOP_LOSS = "eval/sop_loss"
EVAL_SOP_ACCURACY = "eval/sop_accuracy"
EVAL_WORDS_LOSS = "eval/words_loss"
EVAL_DETECTION_LOSS = "eval/detection_loss"

LEARNING_RATE = "optim/lr"
GRAD_NORM = "optim/grad_norm"

TOKENS_PER_SECOND = "speed/tokens_per_s"

# Everything under these is drawn over the step.
FAMILIES = ("train", "eval", "optim", "speed")

# What stands for a whole run in a table of runs, where the last value is not the one that counts.
SUMMARIES = {
    EVAL_MLM_LOSS: "min",
    EVAL_MLM_ACCURACY: "max",
    EVAL_NSP_LOSS: "min",
    EVAL_NSP_ACCURACY: "max",
    EVAL_SOP_LOSS: "min",
    EVAL_SOP_ACCURACY: "max",
    EVAL_WORDS_LOSS: "min",
    EVAL_DETECTION_LOSS: "min",
}
