"""Vectors on disk, written as they come: memory does not grow with the file, and the file is whole or absent.

Letters: N texts · D width
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from foundation.core.errors import UserError
from foundation.core.files import write_atomically


class VectorFile(Protocol):
    """A file that grows by some texts and their vectors, (N, D) float32."""

    def add(self, texts: Sequence[str], vectors: NDArray[np.float32]) -> None:
        """In the input's order."""
        ...


class _Npy:
    """NumPy's format, whose header tells the number of rows before the first of them: it is written again at the end."""

    def __init__(self, file: BinaryIO, width: int) -> None:
        self._file, self._width, self._n_rows = file, width, 0
        self._write_header()
        self._start = file.tell()

    def _write_header(self) -> None:
        # NumPy leaves room for the first axis to grow (numpy.lib.format), so the header keeps its length.
        shape = (self._n_rows, self._width)
        header = {"descr": np.lib.format.dtype_to_descr(np.dtype("<f4")), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)

    def add(self, texts: Sequence[str], vectors: NDArray[np.float32]) -> None:
        self._file.write(np.ascontiguousarray(vectors, "<f4").tobytes())
        self._n_rows += len(vectors)

    def close(self) -> None:
        end = self._file.tell()
        self._file.seek(0)
        self._write_header()
        assert self._file.tell() == self._start
        self._file.seek(end)


class _Parquet:
    """Columns text and vector, a list of D floats; a group of rows for each call."""

    def __init__(self, file: BinaryIO, width: int) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        self._schema = pa.schema([("text", pa.string()), ("vector", pa.list_(pa.float32(), width))])
        self._writer = parquet.ParquetWriter(file, self._schema)

    def add(self, texts: Sequence[str], vectors: NDArray[np.float32]) -> None:
        import pyarrow as pa

        flat: Any = pa.array(vectors.ravel(), pa.float32())
        columns = [pa.array(texts, pa.string()), pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])]
        self._writer.write_table(pa.table(columns, schema=self._schema))

    def close(self) -> None:
        self._writer.close()


@contextmanager
def open_vectors(output: str, width: int) -> Iterator[VectorFile]:
    """A .npy or .parquet file of vectors of D numbers. Raises UserError where it cannot be written."""
    try:
        with write_atomically(Path(output)) as file:
            kind = _Parquet if output.endswith(".parquet") else _Npy
            vectors = kind(file, width)
            yield vectors
            vectors.close()
    except OSError as error:
        raise UserError(f"cannot write {output} ({error.strerror}): choose another output=FILE") from None
