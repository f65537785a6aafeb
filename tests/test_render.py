"""How a table is written, and what is said under it."""

import pandas as pd
import pytest

from stlib import layout, render, tables


def test_markdown(table, found):
    text = render.markdown(layout.scores(table, found, ["the encoder is untrained"]))
    assert "1.000\u00a0±\u00a00.000" in text  # no line ends within a number and its spread
    text = text.replace(render.UNBROKEN, " ")
    assert "|  | PCC per gene ↑ | 95 % | MSE ↓ | 95 % | reported | difference |" in text
    assert "| *Mean (control)* | undefined |" in text
    assert "| Good | **0." in text and "| **0.156 ± 0.133** | -1.035 to 1.347 | 0.579 | -0.423 |" in text
    near = found.assign(difference=-0.0001)
    assert "+0.000" in render.markdown(layout.scores(table, near)) and "-0.000" not in render.markdown(
        layout.scores(table, near)
    )
    assert "1.000 ± 0.000" in text and "*Oracle (ceiling)*" in text and "2.500 ± 2.121 ‡" in text
    assert "- What a constant scores." in text and "Mean (2d): PCC per gene undefined; MSE 2.333." in text
    assert "- the encoder is untrained" in text and "over 2 patients" in text
    widths = {line.count("|") for line in text.splitlines() if line.startswith("|")}
    assert widths == {8, 6}  # six columns, and four where nothing is reported
    assert "<details>" not in text
    folded = render.markdown(layout.scores(table, found, settings=["lr 2 (1)"]))
    assert folded.endswith(f"<summary>{render.SETTINGS}</summary>\n\n- lr 2 (1)\n\n</details>\n")


def test_latex_is_escaped_and_regular(table, found):
    text = render.latex(layout.scores(table, found, ["100 % & more_or_less"]))
    assert r"\caption{H\&E, 100 \% made.}" in text and r"100 \% \& more\_or\_less" in text
    assert r"\textbf{0.156 $\pm$ 0.133} & -1.035 to 1.347 & 0.579 & -0.423 \\" in text
    assert r"\textit{Mean (control)}" in text and r"2.500 $\pm$ 2.121 $\ddagger$" in text
    body = [line for line in text.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
    assert {line.replace(r"\&", "").count("&") for line in body} == {6}
    assert text.isascii()


def test_html_marks_controls_and_the_best(table, found):
    text = render.html(layout.scores(table, found, ["a < b"]))
    assert 'class="data row0 col0 control" >undefined<' in text
    assert 'best" >0.156 ± 0.133<' in text
    assert "H&amp;E" in text and "<p>a &lt; b</p>" in text
    assert text == render.html(layout.scores(table, found, ["a < b"]))
    assert "<details>" not in text
    folded = render.html(layout.scores(table, found, settings=["lr < 1"]))
    assert folded.endswith("</summary>\n<p>lr &lt; 1</p>\n</details>\n")


def test_csv_is_rounded_and_reads_back(table, found):
    text = render.csv(layout.scores(table, found, ["one note"]))
    back = pd.read_csv(pd.io.common.StringIO(text), comment="#").set_index(["label", "metric"])
    assert text.startswith("# one note\n") and len(back) == len(found)
    assert back.loc[("Good", "mse"), "mean"] == 0.156 and "-0.0," not in text


@pytest.mark.parametrize("name", [*tables.names(), *tables.names("costs")])
def test_every_declared_word_has_a_latex_form(name):
    table = tables.load_table(name) if name in tables.names() else tables.load_costs(name)
    words = [table.caption, *table.notes, *(row.label for row in table.rows), "≈ 2 ± 1 ‡"]
    assert all(render._tex(word).isascii() for word in words)


def test_plain_numbers_keep_small_p():
    numbers = pd.DataFrame(
        {"label": ["a", "b"], "mean": [-0.00001, 0.12345], "p_t": [0.00001234, float("nan")]}
    )
    assert render.plain(numbers, 3) == "label,mean,p_t\na,0.0,1.23e-05\nb,0.123,\n"
