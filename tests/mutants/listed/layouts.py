"""Mutants of how a search is laid out: members, patches, and heads as matrix products."""

from ..mutant import room

RULES = "search_rules.py::test_a_target_rests_only_where_a_feasible_model_has_all_it_wants"

SUMS = "outputs.py::test_heads_of_sums_equal_whole_networks"
LINE = "outputs.py::test_the_line_search_stays_a_model_of_the_channels"

LAYOUTS = room(
    "core",
    # layouts
    (
        "layout/chunk.py",
        "s < total else (steps.batch[-1] + 1) % self.frozen.bound.shape[0]",
        "s < total else steps.batch[-1]",
        "search_laws.py::test_bounds_and_fit_losses_belong_to_the_batch_of_the_step",
    ),
    (
        "layout/chunk.py",
        "known = references[batch]",
        "known = references[0]",
        "step.py::test_the_first_record_has_the_loss_of_its_own_batch",
    ),
    (
        "layout/chunk.py",
        "keeps = known is not None and float(known) <= bounds[batch]",
        "keeps = known is not None",
        "execution.py::test_members_that_keep_the_bound_are_spared_the_gradient_of_the_fit",
    ),
    (
        "layout/programs.py",
        "not float(record.fit_loss) <= float(record.bound)",
        "False",
        "execution.py::test_members_that_keep_the_bound_are_spared_the_gradient_of_the_fit",
    ),
    (
        "layout/records.py",
        "jnp.concatenate([some[1:], end[None]])",
        "jnp.concatenate([some[:-1], end[None]])",
        "execution.py::test_every_plan_gives_the_same_numbers",
    ),
    (
        "layout/members.py",
        "part + part[-1:] * (plan.way.chunk - count)",
        "part[-1:] * (plan.way.chunk - count) + part",
        "step.py::test_a_mapped_chunk_that_is_not_full_keeps_its_order",
    ),
    (
        "layout/chunk.py",
        "elif self.in_parts:\n                now = (self._with_parts(states[0], now[0], gradient=True),)",
        "elif self.in_parts:\n                now = (self._with_parts(states[0], now[0], gradient=False),)",
        "fitting.py::test_a_fit_batch_in_parts_gives_the_same_numbers",
    ),
    (
        "layout/fitting.py",
        "joint = not layout.micro and (mapped or (cases / alike + 1) * operations <= JOINT)",
        "joint = not layout.micro",
        "fitting.py::test_ways_come_from_the_fastest_to_the_thriftiest",
    ),
    ("layout/fitting.py", "if taken <= room:", "if taken < room:", "fitting.py::test_the_fastest_way_that_fits"),
    (
        "layout/fitting.py",
        "base = records + (0 if budget is None else budget.base)",
        "base = 0 if budget is None else budget.base",
        "fitting.py::test_the_fastest_way_that_fits",
    ),
    (
        "fit.py",
        "if number % n == 0)",
        "if True)",
        "fitting.py::test_parts_are_of_one_size",
    ),
    (
        "layout/fitting.py",
        "return -(-members // -(-members // chunk))",
        "return chunk",
        "fitting.py::test_mapped_members_fill_the_room_in_even_chunks",
    ),
    (
        "layout/fitting.py",
        "taken = each * -(-chunk // layout.devices)",
        "taken = each * chunk",
        "fitting.py::test_mapped_members_fill_the_room_in_even_chunks",
    ),
    (
        "layout/fitting.py",
        "alike * max(1.0, FILLS / operations)",
        "alike * FILLS / operations",
        "fitting.py::test_ways_come_from_the_fastest_to_the_thriftiest",
    ),
    (
        "layout/taken.py",
        "spared = (first._replace(fit_loss=known),)",
        "spared = (first,)",
        "fitting.py::test_what_runs_was_compiled_for_the_plan",
    ),
    (
        "step.py",
        "Kept(z, jnp.asarray(jnp.inf, jnp.float32)",
        "Kept(z, jnp.asarray(jnp.inf)",
        "fitting.py::test_what_runs_was_compiled_for_the_plan",
    ),
    ("layout/work.py", "/ math.prod(image.shape[:-1])", "", "fitting.py::test_the_work_of_a_pass_is_counted"),
    (
        "layout/heads.py",
        "np.repeat(np.arange(count), members)",
        "np.tile(np.arange(count), members)",
        "head.py::test_heads_equal_whole_networks",
    ),
    (
        "layout/heads.py",
        "(weights / jnp.sum(weights, -1, keepdims=True)).T",
        "(weights / weights.shape[-1]).T",
        "head.py::test_regions_weigh_their_points",
    ),
    ("layout/heads.py", "(steps.batch[-1] + 1) % len(fit.labels)", "steps.batch[-1]", "head.py::test_heads_equal_whole_networks"),
    (
        "layout/heads.py",
        "jnp.where(labels == present, second, present)",
        "jnp.where(labels == present, present, second)",
        "head.py::test_the_line_search_ends_at_the_bound",
    ),
    ("layout/patches.py", "+ radius + grid[a]", "+ radius - 1 + grid[a]", "patches.py::test_fit_patches_explain_their_labels"),
    (
        "layout/patches.py",
        "jnp.concatenate(leaves)[order]",
        "jnp.concatenate(leaves)",
        "patches.py::test_a_pixel_on_its_patch_is_the_pixel_of_the_image",
    ),
    ("layout/patches.py", "place < radius", "place < 0", "patches.py::test_a_pixel_on_its_patch_is_the_pixel_of_the_image"),
    # heads
    ("head/iterative.py", "feasible = violation <= 0", "feasible = violation < 0", "step.py::test_heads_at_the_bound_keep_it"),
    ("head/iterative.py", "jnp.any(slope != 0)", "jnp.all(slope != 0)", "head.py::test_heads_equal_whole_networks"),
    ("head/iterative.py", "done | (feasible & _has_all(logits, asked))", "done | _has_all(logits, asked)", RULES),
    ("head/iterative.py", "[-gradient, gradient]", "[gradient, -gradient]", "head.py::test_heads_equal_whole_networks"),
    (
        "head/iterative.py",
        '"gct,ch->ght", whole, sums',
        '"gct,ch->ght", whole, 1 - sums',
        SUMS,
    ),
    (
        "head/line_search.py",
        "jnp.kron(problem.sums, ",
        "jnp.kron(1 - problem.sums, ",
        LINE,
    ),
    ("head/iterative.py", "| (asked.weights == 0)", "| (asked.weights < 0)", "step.py::test_padding_of_a_target_takes_no_part"),
    (
        "head/line_search.py",
        "((a == b) - probs[:, b])",
        "((a == b) + probs[:, b])",
        "head.py::test_the_fisher_matrix_is_the_hessian_of_the_fit_loss",
    ),
    (
        "head/line_search.py",
        "inside = loss <= bound",
        "inside = loss <= bound + slack",
        "head.py::test_the_line_search_ends_at_the_bound",
    ),
    (
        "head/line_search.py",
        "turned = asked.labels - against",
        "turned = against - asked.labels",
        "head.py::test_the_line_search_moves_further_than_an_equal_gradient_step",
    ),
    (
        "head/line_search.py",
        "matrix + damping *",
        "matrix + 0 *",
        "head.py::test_the_fisher_matrix_is_the_hessian_of_the_fit_loss",
    ),
    ("head/loss.py", "constant_values=1.0)", "constant_values=0.5)", "head.py::test_log_sum_is_the_sum_of_logarithms"),
    (
        "head/loss.py",
        "jnp.stack([lax.logistic(-logits[:, 0]), one], -1)",
        "jnp.stack([one, lax.logistic(-logits[:, 0])], -1)",
        "head.py::test_heads_equal_whole_networks",
    ),
    ("head/problem.py", "+ k * size for k", "+ k for k", "head.py::test_fit_points_are_labelled_and_repeat_with_the_key"),
    (
        "head/problem.py",
        "jax.random.fold_in(key, s), (wanted,), 0, len(points))",
        "jax.random.fold_in(key, 0), (wanted,), 0, len(points))",
        "head.py::test_fit_points_are_labelled_and_repeat_with_the_key",
    ),
    (
        "head/problem.py",
        "(wanted,), 0, len(points))",
        "(wanted,), 0, len(points) - 1)",
        "head.py::test_fit_points_are_labelled_and_repeat_with_the_key",
    ),
    ("head/problem.py", "reshape(-1) >= 0)", "reshape(-1) > 0)", "head.py::test_fit_points_are_labelled_and_repeat_with_the_key"),
    # choices by measurement
    (
        "layout/measuring.py",
        "work < PAYS * probe",
        "work < 0",
        "measuring.py::test_only_what_pays_is_timed",
    ),
    (
        "layout/measuring.py",
        "other < (1 - TIE) * own for",
        "other < own for",
        "measuring.py::test_a_tie_keeps_the_rule",
    ),
    (
        "layout/measuring.py",
        "(time_of(known[best]), time_of(rule))]",
        "(seconds[best], seconds[rule.name])]",
        "measuring.py::test_who_wins_once_by_chance_is_not_taken",
    ),
    (
        "layout/measuring.py",
        "(again if same else anew)",
        "again",
        "measuring.py::test_ways_of_the_same_programs_need_no_compilation",
    ),
    (
        "layout/measuring.py",
        'stored["name"] in known',
        "True",
        "measuring.py::test_a_damaged_file_only_costs_the_timing",
    ),
    (
        "layout/members.py",
        "max(tried.predicted for tried in made.values())",
        "plan.predicted",
        "measured_searches.py::test_what_was_timed_counts_as_memory",
    ),
    (
        "layout/members.py",
        "rule = replace(layout, memory=None)",
        "rule = layout",
        "measured_searches.py::test_the_budget_is_no_part_of_a_key",
    ),
)
