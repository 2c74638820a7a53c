"""Prints the results of `run` as Markdown: medians with their spread, and ratios round by round."""

import statistics


def number_text(x):
    if abs(x) >= 100000:
        return f"{x / 1000:.0f}k"
    if abs(x) >= 1000:
        return f"{x:.0f}"
    return f"{x:.3g}"


def spread(values):
    if not values:
        return "-"
    middle = number_text(statistics.median(values))
    if len(values) == 1:
        return middle
    return f"{middle} [{number_text(min(values))}..{number_text(max(values))}]"


def values(results, row):
    """Of the rounds in which it was measured and has this figure."""
    return [v for v in (row.of(r) for r in results) if v is not None]


def compared(row, ours, theirs):
    """The ratio, or difference, of each round in which both were measured: what disturbs a round disturbs both."""
    pairs = [(row.of(a), row.of(b)) for a, b in zip(ours, theirs)]
    pairs = [(a, b) for a, b in pairs if a is not None and b is not None]
    if row.is_difference:
        return [a - b for a, b in pairs]
    return [a / b for a, b in pairs if b]


def columns_of(players):
    """Each Starling beside each other server, and its variants beside the first one."""
    starlings = [p.name for p in players if p.target == "starling"]
    columns = [(s, other.name) for s in starlings for other in players if other.target != "starling"]
    return columns + [(s, starlings[0]) for s in starlings[1:]]


def print_table(title, measures, players, results):
    """measures: (name, rows); results[(name of a player, name of a measure)] = one dict or None for each round."""
    columns = columns_of(players)
    heads = [title, *(p.name for p in players), *(f"{a} / {b}" for a, b in columns), "better"]
    print("| " + " | ".join(heads) + " |")
    print("|" + "---|" * len(heads))
    for name, rows in measures:
        for row in rows:
            cells = [row.title] + [spread(values(results.get((p.name, name), []), row)) for p in players]
            for ours, theirs in columns:
                shown = row.bare_ratio or theirs != "bare"
                both = compared(row, results.get((ours, name), []), results.get((theirs, name), []))
                text = spread(both) if shown else "-"
                cells.append(f"difference {text}" if row.is_difference and both else text)
            print("| " + " | ".join([*cells, row.better]) + " |")
    print()
