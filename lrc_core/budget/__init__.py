"""The only place where ranks become parameters and ratios, and where a size is turned into another word for it.

``sizes``: kept <-> removed. ``laws``: what storing a matrix of rank k costs. ``layers``: one layer under its law.
``fit``: whole plans. Embeddings, head, norms and biases are never compressed.
"""

from lrc_core.budget.fit import (
    Ranks,
    check_keep,
    check_target,
    dense_ranks,
    fit_budget,
    keep_ratio,
    normalised,
    plan_params,
    uniform_ranks,
    whole_model_ratio,
)
from lrc_core.budget.laws import LAWS, StorageLaw, storage_law
from lrc_core.budget.layers import (
    Shapes,
    break_even,
    factor_params,
    is_dense,
    largest_low_rank,
    law_of,
    layer_params,
    layer_ratio,
    next_rank,
    params_per_component,
    params_per_rank,
    rank_of_share,
    smallest_dense_rank,
    smallest_rank,
    snapped_rank,
    stored,
    stored_card,
    whole_rank_of_share,
)
from lrc_core.budget.sizes import (
    USUAL_KEEP,
    keep_at,
    kept_share,
    removed_percent,
    removed_share,
    same_percent,
    same_size,
    size_key,
    whole_percent,
    within,
)
