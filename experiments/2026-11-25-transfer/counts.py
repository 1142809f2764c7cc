"""How much do reviews tell, without a label, about what words think of a film?

    python experiments/2026-11-25-transfer/counts.py data/corpora/imdb_unlabelled.txt.gz data/glue/SST-2/train.tsv

Semantic orientation (Turney 2002): a word leans to the side with whose seeds it shares reviews; a text is the sum of its words.
Printed is the area under the ROC curve over the training file's texts of six words or more: no label is used but to score.
"""

import gzip
import sys

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.metrics import roc_auc_score

POSITIVE = ["great", "excellent", "wonderful", "fantastic", "brilliant", "amazing", "superb", "beautiful"]
NEGATIVE = ["terrible", "bad", "awful", "horrible", "boring", "stupid", "poor", "lame", "worst", "waste"]
MIN_DOCUMENTS, SMOOTHING = 10, 5


def main(corpus: str, labelled: str) -> None:
    """Print the areas."""
    with gzip.open(corpus, "rt", encoding="utf-8") as file:
        documents = file.read().split("\n\n")
    with open(labelled, encoding="utf-8") as file:
        rows = [line.rstrip("\n").split("\t") for line in file][1:]
    rows = [row for row in rows if len(row[0].split()) >= 6]
    labels = np.array([int(row[1]) for row in rows])
    cutter = CountVectorizer(binary=True, min_df=MIN_DOCUMENTS, token_pattern=r"[A-Za-z']+")
    present = cutter.fit_transform(documents).astype(np.float32)
    texts = cutter.transform([row[0] for row in rows]).astype(np.float32)
    columns = [[cutter.vocabulary_[word] for word in side] for side in (POSITIVE, NEGATIVE)]
    beside = []
    for side in columns:
        seeds = np.asarray(present[:, side].sum(axis=1)).ravel()
        beside.append(np.log((present.T @ seeds + SMOOTHING) / seeds.sum()))
    alone = np.zeros(present.shape[1])
    alone[columns[0]], alone[columns[1]] = 1, -1
    print(f"{len(documents):,} documents, {len(rows):,} texts")
    print(f"seeds alone                     AUC {roc_auc_score(labels, texts @ alone):.3f}")
    print(f"words that share reviews with   AUC {roc_auc_score(labels, texts @ (beside[0] - beside[1])):.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
