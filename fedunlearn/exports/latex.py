r"""Tables for papers in LaTeX, with ``booktabs``: one for every request, made of `fedunlearn.exports.papers.tidy`.

Bold is the best strategy, and only where that choice survives: both answers yes, that it forgot (equivalence of its
memory to retraining's) significant after Holm's correction over all strategies too, and of those the cheapest
(`results.sentences.best`). The largest number of a column is never bold for being the largest: of twenty equal
strategies one always looks best.

What is written compiles with pdfLaTeX: text from data is escaped, and letters beyond Latin ones stand as ``[U+5F88]``.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from fedunlearn.results.columns import called
from fedunlearn.results.kinds import noun, words
from fedunlearn.results.sentences import UNCLEAR, UNCLEAR_MEANS, percent
from fedunlearn.results.tables import short
from fedunlearn.results.wording import line
from fedunlearn.scoring.kinds import scored

LONGEST = 60
"""Letters of a label that are shown."""
_LONGEST_SENTENCE = 200
LARGEST = 45
"""Rows that fit a page; a longer table goes on, as ``longtable``."""
PREAMBLE = r"""% \usepackage[T1]{fontenc}
% \usepackage{booktabs}
% \usepackage{longtable}  % only for tables of more than a page
"""
_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "`": r"\textasciigrave{}",
    "'": r"\textquotesingle{}",
    "[": "{[}",
    "]": "{]}",
    "–": "--",
    "—": "---",
    "−": "$-$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "∞": r"$\infty$",
    "…": r"\dots{}",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "*": "{*}",  # the end of the row before would take it for its own
}


_APART = "\N{WORD JOINER}"
"""Marks where two letters would become another: two hyphens a dash. `wording.line` leaves none in a text."""


def latex(table: pd.DataFrame, kind: str, keys: Sequence[str] = ()) -> str:
    """A table for every request.

    Args:
        table: from `tidy`, of one run or of several one below the other.
        kind: of task.
        keys: columns that tell the runs apart, such as the swept ones.
    """
    requests = [own for _, own in table.groupby("request", sort=False)]
    return PREAMBLE + "".join(f"\n{_table(own, kind, keys)}" for own in requests)


def escaped(text: object, longest: int = LONGEST) -> str:
    """Text as LaTeX shows it: in one line, cut where it is endless, and without power over the document."""
    whole = line(text)
    cut = whole if len(whole) <= longest else f"{whole[: longest - 1]}…"
    parted = re.sub(r"([-,])(?=\1)", rf"\1{_APART}", cut)
    return "".join(map(_letter, parted)).replace(_letter(_APART), "{}")


def _letter(letter: str) -> str:
    if letter in _SPECIAL:
        return _SPECIAL[letter]
    # Latin-1 and Latin Extended-A letters are in every T1 font; what is not a letter may not be.
    known = letter.isascii() or (ord(letter) < 0x180 and unicodedata.category(letter).startswith("L"))
    return letter if known and letter != "ŉ" else f"{{[}}U+{ord(letter):04X}{{]}}"


# ---------------------------------------------------------------------------------------------- the table


def _table(own: pd.DataFrame, kind: str, keys: Sequence[str]) -> str:
    records = [{str(key): value for key, value in record.items()} for record in own.to_dict("records")]
    if keys:  # noise is the same everywhere, and there are many rows
        records = [record for record in records if record["role"] != "control"]
    heads = [*(escaped(key.rpartition(".")[2]) for key in keys), *_heads(kind)]
    body, block = list[str](), None
    for record in records:
        values = [record[key] for key in keys]
        own_block = values if keys else [record["role"] == "strategy"]
        new = block != own_block
        if new and body:
            body.append(r"\midrule")
        block = own_block
        shown = [escaped(value) if new else "" for value in values]
        body.append(_row([*shown, *_cells(record, kind)]))
    return _placed(_caption(records, kind), "l" * len(keys) + _ALIGNED, _row(heads), body)


_ALIGNED = "llrrlrrrrr"


def _heads(kind: str) -> list[str]:
    short_ = words(kind).brief
    return [
        "Strategy",
        "Forgotten?",
        r"Memory left (\%)",
        "Known",
        "Still good?",
        f"Test {short_}",
        r"$\Delta$",
        f"Forget {short_}",
        "MIA AUC",
        r"Cost (\%)",
    ]


def _cells(record: Mapping[str, Any], kind: str) -> list[str]:
    """One model: nothing is bold but the best strategy's name and cost.

    Retraining again is the retrained models once more: their means would only stand there twice.
    """
    quality = scored(kind).quality
    known, compared = record["patients_known"], record["patients_compared"]
    cost, reference = record["share_of_retraining"], record["role"] == "reference"
    nothing = record["role"] == "original" or _unknown(cost)
    judged = [
        _bold(escaped(called(record["strategy"])), record["best"]),
        _answer(record["forgotten"]),
        _percent(record["memory_left"], record["memory_left_half"]),
        "--" if _unknown(known) else f"{int(known)} of {int(compared)}",
        _answer(record["useful"]),
    ]
    difference = "" if reference else _share(record["test_difference"], record["test_difference_half"])
    if record["role"] == "control":
        return [*judged, "", difference, *([""] * (len(_heads(kind)) - len(judged) - 2))]
    return [
        *judged,
        _share(record[f"test_{quality}"], record[f"test_{quality}_half"]),
        difference,
        _share(record[f"forget_{quality}"], record[f"forget_{quality}_half"]),
        _share(record["mia_loss_auc"], record["mia_loss_auc_half"]),
        "--" if nothing else _bold(percent(cost), record["best"]),
    ]


def _caption(records: Sequence[Mapping[str, Any]], kind: str) -> str:
    first = records[0]
    seeds = sorted({int(record["seeds"]) for record in records if record["role"] == "strategy"} or {0})
    several = len({(r["scenario"], r["asks"]) for r in records}) > 1
    about = "" if several else f": {escaped(first['asks'], _LONGEST_SENTENCE)}"
    count = sum(record["role"] == "strategy" for record in records)
    chosen = (
        rf" Bold: forgotten, also after Holm's correction over {_few(count, records)} strategies, and still good; the "
        "cheapest of those."
        if any(record["best"] for record in records)
        else ""
    )
    what = f"{noun(kind)}s"
    answers = {record[key] for record in records for key in ("forgotten", "useful")}
    unclear = f" {UNCLEAR_MEANS.capitalize()}" if "cannot tell" in answers else ""
    again = (
        f" {called('retrained_other').capitalize()}: the same models, each judged against another seed's: what luck "
        "alone does."
        if any(record["role"] == "control" for record in records)
        else ""
    )
    return (
        rf"{escaped(first['scenario'])}, {escaped(first['request'])}{about}. Memory left: 0 as if never seen, 100 as "
        rf"in the original model; Known: patients still known; Test: on unseen {what}; $\Delta$: less that of "
        rf"retraining; MIA AUC: .5 is guessing; Cost: hospitals' work, of retraining's. Means over "
        rf"{' or '.join(map(str, seeds))} seeds, $\pm$ half of the 95\,\% interval.{_of_more(records)}{again}{chosen}"
        rf"{unclear}"
    )


def _of_more(records: Sequence[Mapping[str, Any]]) -> str:
    """Why rows cannot be subtracted where there are more retrained models than seeds; empty if there are not."""
    found = sorted({int(one["references"]) for one in records if one["references"] > one["seeds"]})
    if not found:
        return ""
    return (
        rf" Answers, Memory left and $\Delta$ are against all {' or '.join(map(str, found))} retrained models; the row "
        "of retraining is of the strategies' seeds alone, so rows cannot be subtracted."
    )


def _few(count: int, records: Sequence[Mapping[str, Any]]) -> str:
    """How many strategies were chosen from; of several runs below one another, the run's own."""
    runs = sum(record["role"] == "reference" for record in records)
    return str(count) if runs <= 1 else "each run's"


def _placed(caption: str, columns: str, head: str, body: Sequence[str]) -> str:
    rows = "\n".join(body)
    if len(body) > LARGEST:
        return (
            f"{{\\small\\setlength{{\\tabcolsep}}{{3pt}}\\setlength{{\\LTcapwidth}}{{\\linewidth}}\n"
            f"\\begin{{longtable}}{{{columns}}}\n\\caption{{{caption}}}\\\\\n\\toprule\n{head}\n\\midrule\n\\endfirsthead\n"
            f"\\toprule\n{head}\n\\midrule\n\\endhead\n\\bottomrule\n\\endfoot\n{rows}\n\\end{{longtable}}}}\n"
        )
    return (
        f"\\begin{{table}}[htbp]\n\\centering\n\\small\n\\setlength{{\\tabcolsep}}{{4pt}}\n\\caption{{{caption}}}\n"
        f"\\begin{{tabular}}{{{columns}}}\n\\toprule\n{head}\n\\midrule\n{rows}\n\\bottomrule\n\\end{{tabular}}\n"
        "\\end{table}\n"
    )


# ------------------------------------------------------------------------------------------------ cells


def _row(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def _bold(text: str, best: bool) -> str:
    return rf"\textbf{{{text}}}" if best else text


def _answer(word: object) -> str:
    return "" if _unknown(word) or not word else UNCLEAR if word == "cannot tell" else escaped(word)


def _percent(value: float, half: float) -> str:
    """A share in percent; -- where unknown."""
    return "--" if _unknown(value) else _math(percent(value), percent(half) if math.isfinite(half) else "")


def _share(value: float, half: float) -> str:
    return "--" if _unknown(value) else _math(short(value, 3), short(half, 3) if math.isfinite(half) else "")


def _math(value: str, half: str) -> str:
    """With a minus instead of a hyphen; ``>999`` as it is."""
    return rf"${value} \pm {half}$" if half else f"${value}$"


def _unknown(value: object) -> bool:
    return value is None or (isinstance(value, float) and not math.isfinite(value))
