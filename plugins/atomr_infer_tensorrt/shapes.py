"""Which shapes a plan takes: ranges, profiles, and what is refused.

A plan is made for ranges of its inputs' shapes, a *profile* each; the kernels are
chosen for the usual shape of a profile.  A run uses the first profile that takes all
of its shapes.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest

import attrs

from atomr_infer.errors import InvalidRequestError

Shape = tuple[int, ...]
"""Dimensions of a tensor; -1: as it comes."""


@attrs.frozen
class Range:
    """Which shapes one input may have.

    Attributes:
        least: the smallest, dimension by dimension.
        usual: the one that the plan is made fast for.
        most: the largest.

    Raises:
        ValueError: they are not of one rank, or not in this order.
    """

    least: Shape
    usual: Shape
    most: Shape

    def __attrs_post_init__(self) -> None:
        if not len(self.least) == len(self.usual) == len(self.most):
            raise ValueError(
                "least, usual and most have different numbers of dimensions"
            )
        for least, usual, most in zip(self.least, self.usual, self.most, strict=True):
            if not 0 <= least <= usual <= most:
                raise ValueError(
                    f"a dimension is {least}, {usual}, {most}; least, usual and most "
                    "must be in this order"
                )

    def takes(self, shape: Sequence[int]) -> bool:
        """Whether a shape is in it.

        >>> Range((1, 3), (8, 3), (32, 3)).takes((16, 3))
        True
        """
        return len(shape) == len(self.most) and all(
            least <= size <= most
            for least, size, most in zip(self.least, shape, self.most, strict=True)
        )

    def __str__(self) -> str:
        """As an error says it.

        >>> str(Range((1, 3), (8, 3), (32, 3)))
        '[1 to 32, 3]'
        """
        sizes = (
            str(least) if least == most else f"{least} to {most}"
            for least, most in zip(self.least, self.most, strict=True)
        )
        return f"[{', '.join(sizes)}]"


Profile = Mapping[str, Range]
"""The ranges of all inputs, by their names."""


def choose_profile(
    profiles: Sequence[Profile], shapes: Mapping[str, Sequence[int]]
) -> int:
    """Return the number of the first profile that takes all shapes.

    Raises:
        InvalidRequestError: none does; names a tensor, its shape and what is taken.
    """
    for number, profile in enumerate(profiles):
        if all(profile[name].takes(shape) for name, shape in shapes.items()):
            return number
    raise _outside(profiles, shapes)


def _outside(
    profiles: Sequence[Profile], shapes: Mapping[str, Sequence[int]]
) -> InvalidRequestError:
    for name, shape in shapes.items():
        if not any(profile[name].takes(shape) for profile in profiles):
            taken = " or ".join(dict.fromkeys(str(p[name]) for p in profiles))
            return InvalidRequestError(
                f"{name!r} has the shape {shown(shape)}; the plan takes {taken}",
                param=name,
            )
    # Each is taken by some profile, and no profile takes all of them.
    given = ", ".join(f"{name!r} {shown(shape)}" for name, shape in shapes.items())
    taken = " or ".join(
        ", ".join(f"{name!r} {profile[name]}" for name in shapes)
        for profile in profiles
    )
    return InvalidRequestError(
        f"the shapes {given} do not belong together; the plan takes {taken}",
        param=next(iter(shapes)),
    )


def shown(shape: Sequence[int]) -> str:
    """Return a shape as errors say it.

    >>> shown((4, 2))
    '[4, 2]'
    """
    return f"[{', '.join(map(str, shape))}]"


def rows_that_fit(
    profiles: Sequence[Profile], shapes: Mapping[str, Sequence[int]]
) -> int:
    """Return how many rows a run can have whose rows are like these.

    A row is what stands at one place of the first dimension of each input.

    Raises:
        InvalidRequestError: not even one; names a tensor, its shape and what is taken.
    """
    fitting = [
        min(profile[name].most[0] for name in shapes)
        for profile in profiles
        if all(
            shape and profile[name].takes((profile[name].most[0], *shape[1:]))
            for name, shape in shapes.items()
        )
    ]
    if not fitting:
        raise _outside(profiles, shapes)
    return max(fitting)


def takes_rows(
    profiles: Sequence[Profile], shapes: Mapping[str, Sequence[int]], rows: int
) -> bool:
    """Whether a run can have so many rows that are like these."""
    return any(
        all(profile[name].takes((rows, *shape[1:])) for name, shape in shapes.items())
        for profile in profiles
    )


@attrs.frozen(kw_only=True)
class InputShape:
    """An input as a model's file declares it.

    Attributes:
        name: as the model calls it.
        sizes: its dimensions; a text or None where it may have any size.
    """

    name: str
    sizes: tuple[int | str | None, ...]

    @property
    def is_fixed(self) -> bool:
        """Whether all of its sizes are known."""
        return all(isinstance(size, int) for size in self.sizes)

    def __str__(self) -> str:
        """As an error says it.

        >>> str(InputShape(name="x", sizes=("n", 3, None)))
        "'x' [n, 3, ?]"
        """
        sizes = ("?" if size is None else str(size) for size in self.sizes)
        return f"{self.name!r} [{', '.join(sizes)}]"


def rows_profile(inputs: Sequence[InputShape], max_batch: int) -> Profile | None:
    """Return the profile of a model of which only the rows vary; None: others do, too.

    >>> found = rows_profile([InputShape(name="x", sizes=("n", 3))], 32)
    >>> {name: str(range) for name, range in found.items()}
    {'x': '[1 to 32, 3]'}
    """
    profile: dict[str, Range] = {}
    for one in inputs:
        rest = tuple(size for size in one.sizes[1:] if isinstance(size, int))
        if len(rest) < len(one.sizes) - 1:
            return None
        first = one.sizes[:1]
        if not first:
            profile[one.name] = Range((), (), ())
        elif isinstance(first[0], int):
            same = (first[0], *rest)
            profile[one.name] = Range(same, same, same)
        else:
            profile[one.name] = Range(
                (1, *rest), (max(1, max_batch // 4), *rest), (max_batch, *rest)
            )
    return profile


def texts_profiles(
    inputs: Sequence[InputShape],
    *,
    max_batch: int,
    context_tokens: int,
    batch_tokens: int,
) -> tuple[Profile, ...]:
    """Return the profiles of a model that reads texts: rows of tokens.

    A run has ``batch_tokens`` at most: many short texts, or few long ones.  One
    profile for both would take memory for many long ones.
    """
    short = min(context_tokens, max(1, batch_tokens // max_batch))
    few = min(max_batch, max(1, batch_tokens // context_tokens))
    spans = [_texts(max_batch, short), _texts(few, context_tokens)]
    return tuple({one.name: span for one in inputs} for span in dict.fromkeys(spans))


def _texts(rows: int, tokens: int) -> Range:
    usual = (max(1, rows // 2), max(1, tokens // 2))
    return Range((1, 1), usual, (rows, tokens))


def causal_profiles(
    inputs: Sequence[InputShape],
    *,
    max_seqs: int,
    prefill_tokens: int,
    context_tokens: int,
    heads: tuple[int, int],
) -> tuple[Profile, Profile]:
    """Return the profiles of a causal model: of next tokens, and of a prompt's piece.

    The sizes of a profile belong together at each of its three points: what the mask
    covers is what the cache holds and the new tokens.

    Args:
        inputs: the model's.
        max_seqs: rows of a step.
        prefill_tokens: tokens of a piece.
        context_tokens: most that the cache holds of a sequence.
        heads: how many the cache has, and the size of each.
    """
    sizes = _CausalSizes(rows=max_seqs, new=1, past=context_tokens, heads=heads)
    steps, reads = sizes, attrs.evolve(sizes, rows=1, new=prefill_tokens)
    return (
        {one.name: steps.range_of(one) for one in inputs},
        {one.name: reads.range_of(one) for one in inputs},
    )


@attrs.frozen(kw_only=True)
class _CausalSizes:
    rows: int
    new: int
    past: int
    heads: tuple[int, int]

    def range_of(self, one: InputShape) -> Range:
        usual_rows, usual_past = max(1, self.rows // 2), self.past // 4
        points = [
            self._shape(one, rows, new, past)
            for rows, new, past in (
                (1, 1, 0),
                (usual_rows, self.new, usual_past),
                (self.rows, self.new, self.past),
            )
        ]
        return Range(*points)

    def _shape(self, one: InputShape, rows: int, new: int, past: int) -> Shape:
        if one.name == "attention_mask":
            return (rows, past + new)
        if len(one.sizes) == len(("rows", "heads", "past", "size")):
            heads, size = self.heads
            return (rows, heads, past, size)
        if not one.sizes or one.is_fixed:
            return tuple(size for size in one.sizes if isinstance(size, int))
        return (rows, new)


def check_profile(profile: Profile, inputs: Sequence[InputShape]) -> str | None:
    """Return what is wrong with a profile of a model; None: nothing is."""
    known = {one.name: one for one in inputs}
    for name, span in profile.items():
        if name not in known:
            names = ", ".join(known)
            return f"there is no input {name!r}; the model has {names}"
        if not _may_be(known[name], span):
            return f"{name!r} is {span}, and the model declares {known[name]}"
    for one in inputs:
        if one.name not in profile and not one.is_fixed:
            return f"the input {one} is missing"
    return None


def _may_be(one: InputShape, span: Range) -> bool:
    sizes = zip_longest(one.sizes, span.least, span.most, fillvalue=-1)
    return all(
        least == most == size if isinstance(size, int) else least >= 0
        for size, least, most in sizes
    )
