"""A wide table of counts by hand, and every way in which one is refused."""

import gzip
import re

import numpy as np
import pytest

from stlib.counts import read_counts

HEAD = "\tERBB2\tAC087350.1\tGAPDH"
ROWS = ["10x13\t0\t12\t3", "2x2\t7\t0\t0", "3x2\t0\t0\t123456789"]


def write(folder, *lines: str):
    path = folder / "A2.tsv.gz"
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    return path


@pytest.mark.parametrize("end", [[], [""]], ids=["no newline at the end", "newline"])
def test_a_table_by_hand(tmp_path, end):
    barcodes, genes, counts = read_counts(write(tmp_path, HEAD, *ROWS, *end))
    assert barcodes.tolist() == ["10x13", "2x2", "3x2"]
    assert genes.tolist() == ["ERBB2", "AC087350.1", "GAPDH"]
    assert counts.toarray().tolist() == [[0, 12, 3], [7, 0, 0], [0, 0, 123456789]]
    assert counts.dtype == np.int32 and counts.format == "csr" and counts.nnz == 4  # no zero is stored


def test_random_tables_come_back(tmp_path):
    rng = np.random.default_rng(0)
    true = rng.integers(0, 10 ** rng.integers(0, 9, (20, 30)))
    lines = ["\t".join(["", *(f"g{j}" for j in range(30))])]
    lines += ["\t".join([f"s{i}", *map(str, row)]) for i, row in enumerate(true)]
    assert np.array_equal(read_counts(write(tmp_path, *lines))[2].toarray(), true)


@pytest.mark.parametrize("field", ["-1", "0.5", "12a", "1e3", "", "NA", " 1", "1234567890"])
def test_what_is_no_count_is_named_by_spot_and_gene(tmp_path, field):
    where = rf"spot '3x2', gene 'AC087350.1' has '{re.escape(field)}' \(1 such in all\). Give raw counts"
    with pytest.raises(ValueError, match=f"A2.tsv.gz: counts are whole numbers from 0 up; {where}"):
        read_counts(write(tmp_path, HEAD, *ROWS[:2], f"3x2\t0\t{field}\t5"))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([*ROWS[:2], "3x2\t0\t1"], "the 3 genes of the header; row 3 has 2"),
        (["10x13\t0\t1\t2\t3", *ROWS[1:]], "the 3 genes of the header; row 1 has 4"),
        ([ROWS[0], "", *ROWS[1:]], "row 2 has 0. Delete the file and run `make data` again"),
        ([], "the 3 genes of the header; row 1 has 0"),
    ],
)
def test_a_row_of_another_length(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        read_counts(write(tmp_path, HEAD, *rows))


def test_a_gene_twice(tmp_path):
    with pytest.raises(ValueError, match=r"a gene has one column, found \['GAPDH'\] repeated"):
        read_counts(write(tmp_path, "\tGAPDH\tERBB2\tGAPDH", *ROWS))


@pytest.mark.fault(
    "a table of counts that is cut off", "5 or 40 bytes of a .tsv.gz", "ValueError that names it"
)
@pytest.mark.parametrize("keep", [5, 40])
def test_a_truncated_file(tmp_path, keep):
    path = write(tmp_path, HEAD, *ROWS)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match="A2.tsv.gz is truncated or damaged"):
        read_counts(path)
