"""Which texts share a run."""

from __future__ import annotations

from atomr_infer.runtimes.text_runner import _Pending, _Text, choose


def test_a_run_takes_the_oldest_and_those_like_it() -> None:
    def waiting(*lengths: int) -> list[_Text]:
        return [_Text([0] * length, _Pending(1)) for length in lengths]

    def chosen(lengths: list[int], batch_tokens: int) -> list[int]:
        return [len(t.tokens) for t in choose(waiting(*lengths), batch_tokens)]

    assert chosen([5, 100, 6, 4, 90], 30) == [5, 6, 4]
    assert chosen([100, 5, 101], 50) == [100]
    assert chosen([100, 5, 101, 99], 202) == [100, 101]
    assert chosen([3, 3, 3, 3], 9) == [3, 3, 3]
