"""One-step test error on shifted prompts (Prop 5.1) and what makes data hard for a model (section 5.1).

Notation: V is the model's operator V~ (W~ = I), Sigma the test covariance, n the test prompt's length
(Prop 5.1 prints n and m for it in turn). Every value is divided by d.
"""

from __future__ import annotations

from datadose.covariance import (
    product,
    same_form,
    trace_product,
    transpose,
    validate_operator,
    wishart_second_moment,
)
from datadose.errors import require_integer
from datadose.shapes import Operator


def post_test_error(V: Operator, target: Operator, length: int) -> float:
    """Prop 5.1 / d: E ||what - w*||^2 / d after one thinking step from w_0 = 0 on a prompt of length n.

    E ||I + V S||_F^2 = ||I + V Sigma||_F^2 + (1/n) (tr(V Sigma^2 V^T) + tr(V Sigma V^T) tr Sigma), and
    since E[S^2] = (1 + 1/n) Sigma^2 + (tr Sigma / n) Sigma this is d + 2 tr(V Sigma) + tr(V E[S^2] V^T).

    Args:
        V: operator, spectrum (d,) or any real matrix (d, d); need not be symmetric.
        target: test covariance Sigma, spectrum (d,) or PSD (d, d).
        length: test prompt length n >= 1.

    Raises InputError for a length below 1, and for a ``V`` that is no finite operator of the target's size.
    """
    n = require_integer("length", length, 1)
    V = validate_operator("V", V, len(target))
    V, target = same_form(V, target)
    return quadratic_error(V, target, wishart_second_moment(target, n))


def quadratic_error(V: Operator, target: Operator, second_moment: Operator) -> float:
    """The error 1 + (2 tr(V Sigma) + tr(V M V^T)) / d for given moments: Prop 5.1 / d in its shortest form.

    Args:
        V: operator, a spectrum (d,) or a matrix (d, d).
        target: Sigma = E[S], a spectrum (d,) or a matrix (d, d).
        second_moment: M = E[S^2], in either form. Nothing is checked.
    """
    quadratic = trace_product(product(V, second_moment), transpose(V))
    return 1 + (2 * trace_product(V, target) + quadratic) / len(target)


def error_of_moments(
    mean: Operator, second_moment: Operator, target: Operator, test_second_moment: Operator
) -> float:
    """The mean 1 + (2 tr(E[V] Sigma) + tr(E[V^T V] M)) / d of Prop 5.1 / d over a random operator V.

    Args:
        mean: E[V], a spectrum (d,) or a matrix (d, d).
        second_moment: E[V^T V], symmetric, in either form.
        target: Sigma = E[S] of the test prompts.
        test_second_moment: M = E[S^2] of the test prompts. Nothing is checked.
    """
    linear = 2 * trace_product(mean, target)
    return 1 + (linear + trace_product(second_moment, test_second_moment)) / len(target)


def hardness(data: Operator, V: Operator, length: int | None = None) -> float:
    """How hard data with covariance A are for the model V: the model's own one-step error on them, over d.

    Args:
        data: covariance A, a spectrum (d,) or a PSD matrix (d, d).
        V: operator, a spectrum (d,) or a matrix (d, d); -Gamma0^{-1} for the pretrained model.
        length: prompt length n >= 1 for the exact error of Prop 5.1. None gives the limit of long prompts,
            the measure ||I + V A||_F^2 / d of the paper's section 5.1 and Insight 1.

    Raises InputError like :func:`post_test_error`.
    """
    if length is not None:
        return post_test_error(V, data, length)
    V, data = same_form(validate_operator("V", V, len(data)), data)
    return quadratic_error(V, data, product(data, data))
