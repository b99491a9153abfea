"""Mutants of the search: steps, solvers, schedules, losses, weights, layouts and heads."""

from ..mutant import room

RULES = "search_rules.py::test_a_target_rests_only_where_a_feasible_model_has_all_it_wants"
BACK = "search_rules.py::test_backtracking_goes_halfway_back_to_the_last_feasible_weights"

POOL = "case_views.py::test_the_pool_by_hand"
SUMS = "case_views.py::test_running_sums_of_a_patch_are_the_decomposition_of_its_samples"

CORE = room(
    "core",
    # a step
    (
        "step.py",
        "feasible = record.fit_loss <= record.bound",
        "feasible = record.fit_loss < record.bound",
        "step.py::test_weights_at_the_bound_keep_it",
    ),
    ("step.py", "done = done | (feasible & has_all)", "done = done | has_all", RULES),
    ("step.py", "| (target.weights == 0))", "| (target.weights < 0))", "step.py::test_padding_of_a_target_takes_no_part"),
    (
        "step.py",
        "mode = pass_modes(setup, inputs)[2]",
        "mode = pass_modes(setup, inputs)[1]",
        "search.py::test_recorded_dropout_masks_are_used_in_their_order",
    ),
    ("passes.py", "DrawnNoise(keys[i])", "DrawnNoise(keys[0])", "step.py::test_every_pass_of_a_step_draws_noise_of_its_own"),
    (
        "step.py",
        "penalty(fit_loss - bound,",
        "penalty(bound - fit_loss,",
        "search.py::test_losses_of_the_reference_against_numpy",
    ),
    (
        "step.py",
        "frozen.reference_loss[inputs.batch]\n",
        "frozen.reference_loss[0]\n",
        "case_audit.py::test_the_recorded_loss_is_that_of_the_records_own_fit_batch",
    ),
    (
        "step.py",
        "return objective + penalty, (Record",
        "return objective - penalty, (Record",
        "search.py::test_gradient_against_finite_differences[full]",
    ),
    (
        "passes.py",
        "not setup.patches and not setup.train and setup.solver",
        "not setup.patches and setup.solver",
        "step.py::test_with_noise_the_fit_loss_is_that_of_the_noisy_pass",
    ),
    # fit batches in parts, and what is kept
    (
        "passes.py",
        "share * setup.loss.mean",
        "setup.loss.mean",
        "fitting.py::test_a_fit_batch_in_parts_gives_the_same_numbers",
    ),
    (
        "passes.py",
        "return setup.space.constrained and not setup.patches and not setup.train and setup.loss.adds_up",
        "return setup.space.constrained and not setup.patches and not setup.train",
        "fitting.py::test_what_does_not_add_up_is_never_split",
    ),
    (
        "passes.py",
        "not setup.train and setup.loss.adds_up",
        "setup.loss.adds_up",
        "fitting.py::test_ways_come_from_the_fastest_to_the_thriftiest",
    ),
    (
        "step.py",
        "own + slope * fit, gradient",
        "own + fit, gradient",
        "fitting.py::test_a_fit_batch_in_parts_gives_the_same_numbers",
    ),
    (
        "step.py",
        "better = kept.begun & finite &",
        "better = finite &",
        "fitting.py::test_what_is_kept_gives_the_record_that_the_audit_names",
    ),
    (
        "step.py",
        "(record.fit_loss <= record.bound) & (record.objective < kept.objective)",
        "(record.objective < kept.objective)",
        "fitting.py::test_what_is_kept_gives_the_record_that_the_audit_names",
    ),
    (
        "step.py",
        "(record.objective < kept.objective)\n",
        "(record.objective > -kept.objective)\n",
        "fitting.py::test_what_is_kept_gives_the_record_that_the_audit_names",
    ),
    (
        "step.py",
        "kept = state.kept if last is None else _kept(state.kept, state.z, last)",
        "kept = state.kept",
        "fitting.py::test_what_is_kept_gives_the_record_that_the_audit_names",
    ),
    (
        "step.py",
        "_kept(state.kept, z if setup.record_after else state.z, record)",
        "_kept(state.kept, state.z, record)",
        "fitting.py::test_what_is_kept_gives_the_record_that_the_audit_names",
    ),
    (
        "searching.py",
        "constant_values=-1)[None]",
        "constant_values=0)[None]",
        "fitting.py::test_the_loss_under_kept_weights_is_that_of_the_network",
    ),
    (
        "fit.py",
        "jnp.sum(losses * counts) / jnp.sum(counts)",
        "jnp.mean(losses)",
        "predict.py::test_large_fit_batches_are_measured_in_parts",
    ),
    # solvers
    ("solvers.py", "value - rate * d", "value + rate * d", BACK),
    (
        "solvers.py",
        "if self.hinge else violation",
        "if not self.hinge else violation",
        "search.py::test_hinge_has_no_gradient_inside_the_slack",
    ),
    ("solvers.py", "return self.hinge", "return True", "head.py::test_heads_equal_whole_networks[linear penalty-2]"),
    ("solvers.py", "(a + b) / 2, z, state.held", "(a + b) / 3, z, state.held", BACK),
    ("solvers.py", "where(feasible, z, state.held))", "where(feasible, state.held, z))", BACK),
    ("solvers.py", "(halfway, state.optimizer))", "(halfway, optimizer))", BACK),
    # schedules
    ("schedule.py", "np.arange(self.stride - 1, batches", "np.arange(0, batches", "search.py::test_published_table_of_steps"),
    ("schedule.py", "[self.first, *values[:-1]]", "[self.first, *values[1:]]", "search.py::test_published_table_of_steps"),
    ("schedule.py", "epoch * batches + used", "epoch + used", "search.py::test_published_table_of_steps"),
    ("schedule.py", "if self.relative else", "if not self.relative else", "search.py::test_slack_as_a_fraction_and_in_nats"),
    # losses
    (
        "loss.py",
        "labelled = labels >= 0",
        "labelled = labels > 0",
        "predict.py::test_reference_loss_is_the_mean_over_labelled_pixels",
    ),
    (
        "loss.py",
        "/ jnp.sum(jnp.asarray(weights))",
        "/ jnp.asarray(weights).size",
        "predict.py::test_reference_loss_is_the_mean_over_labelled_pixels",
    ),
    # weights of samples
    (
        "weighting.py",
        "trajectory.fit_loss <= trajectory.bound",
        "trajectory.fit_loss < trajectory.bound",
        "weighting.py::test_a_sample_at_the_bound_is_feasible",
    ),
    ("weighting.py", "& jnp.isfinite(trajectory.objective)", "", "weighting.py::test_samples_that_are_not_finite_get_no_weight"),
    (
        "weighting.py",
        "(feasible(trajectory) if feasible_only else True)",
        "feasible(trajectory)",
        "weighting.py::test_rules_against_numpy",
    ),
    (
        "weighting.py",
        "best = jnp.argmin(jnp.where(counts, trajectory.objective, jnp.inf)",
        "best = jnp.argmax(jnp.where(counts, trajectory.objective, -jnp.inf)",
        "weighting.py::test_rules_against_numpy",
    ),
    ("weighting.py", "counts[..., ::-1], -1)[..., ::-1]", "counts, -1)", "weighting.py::test_rules_against_numpy"),
    ("weighting.py", "0.0) / temperature", "0.0) * temperature", "weighting.py::test_rules_against_numpy"),
    ("weighting.py", '"mis": effective_size', '"mis": 1.0', "weighting.py::test_rules_against_numpy"),
    ("weighting.py", "-scale * jnp.where", "scale * jnp.where", "weighting.py::test_softmax_of_two_losses_by_hand"),
    ("weighting.py", "1.0 / (count + 1.0)", "1.0 / count", "weighting.py::test_samples_with_the_reference_among_them"),
    (
        "weighting.py",
        "jnp.full(count.shape, 0.5)",
        "jnp.zeros(count.shape)",
        "weighting.py::test_samples_with_the_reference_among_them",
    ),
    ("weighting.py", 'return 1 / 3 if given == "half"', 'return 1 / 2 if given == "half"', POOL),
    ("weighting.py", "other = jnp.full((t, count), part / count)", "other = jnp.full((t, count), part)", POOL),
    # decomposition
    (
        "decomposition.py",
        "divergence_terms(probs, mean[None])",
        "divergence_terms(mean[None], probs)",
        "decomposition.py::test_mutual_information_against_numpy",
    ),
    (
        "decomposition.py",
        "jnp.maximum(weights @ entropy(probs) - within, 0.0)",
        "entropy(mean)",
        "decomposition.py::test_mutual_information_against_numpy",
    ),
    (
        "decomposition.py",
        "divergence_terms(reference[None], jnp.maximum(probs, floor))",
        "divergence_terms(jnp.maximum(probs, floor), reference[None])",
        "decomposition.py::test_cross_entropy_against_numpy",
    ),
    (
        "decomposition.py",
        "(1 / 6 - near *",
        "(1 / 6 + near *",
        "decomposition.py::test_small_disagreements_are_not_lost_in_rounding",
    ),
    ("streaming.py", "before * old", "old", "running.py::test_equal_to_the_direct_form"),
    (
        "streaming.py",
        "counts = log_weight > -jnp.inf",
        "counts = weight > 0",
        "running.py::test_a_step_at_a_time_is_all_steps_at_once",
    ),
    (
        "streaming.py",
        "found], [1.0 - share, share])",
        "found], [share, 1.0 - share])",
        "running.py::test_equal_to_the_direct_form",
    ),
    ("streaming.py", "[1.0 / len(sums)] *", "[1.0] *", "running.py::test_a_mixture_of_folds_counts_their_disagreement"),
    ("streaming.py", "entropy(probs) - within, 0.0)", "entropy(probs), 0.0)", SUMS),
    ("streaming.py", "divergence_terms(probs, anchor[None]), -1) + within", "divergence_terms(probs, anchor[None]), -1)", SUMS),
    ("streaming.py", "[1.0 - others_share(given), others_share(given)]", "[0.5, 0.5]", SUMS),
    ("streaming.py", "sums.from_anchor - jnp.sum", "sums.from_anchor + jnp.sum", "running.py::test_equal_to_the_direct_form"),
    (
        "streaming.py",
        "entropy(anchor), sums.to_anchor",
        "entropy(anchor), sums.from_anchor",
        "running.py::test_equal_to_the_direct_form",
    ),
    # what flips cost
    (
        "fragility.py",
        "trajectory.fit_loss - trajectory.reference_loss",
        "trajectory.fit_loss - trajectory.bound",
        "fragility.py::test_one_target_by_hand",
    ),
    ("fragility.py", "flips = differs & counts[..., None]", "flips = differs", "fragility.py::test_one_target_by_hand"),
    ("fragility.py", "first + 1.0, jnp.inf", "first + 0.0, jnp.inf", "fragility.py::test_one_target_by_hand"),
    (
        "fragility.py",
        "smallest = jnp.min(jnp.where(hits, used, jnp.inf)",
        "smallest = jnp.max(jnp.where(hits, used, -jnp.inf)",
        "fragility.py::test_one_target_by_hand",
    ),
    ("fragility.py", "share=jnp.max(share", "share=jnp.min(share", "fragility.py::test_one_target_by_hand"),
    ("fragility.py", "(2.0 * curvature)", "curvature", "fragility.py::test_flip_cost_is_the_optimum_of_the_quadratic_model"),
    (
        "fragility.py",
        "np.asarray(targets.weights) > 0",
        "np.asarray(targets.weights) >= 0",
        "fragility.py::test_scattered_maps_by_hand",
    ),
    (
        "fragility.py",
        "np.maximum if largest else np.minimum",
        "np.minimum if largest else np.maximum",
        "fragility.py::test_scattered_maps_by_hand",
    ),
    ("fragility.py", "(share >= HALF)", "(share > HALF + 2e-6)", "fragility.py::test_one_target_by_hand"),
    # spaces, networks and fit data
    (
        "space.py",
        "re.match(self.pattern, n)",
        "re.search(self.pattern, n)",
        "step.py::test_a_pattern_matches_names_from_their_start",
    ),
    ("space.py", "self.epsilon * jnp.tanh(z)", "self.epsilon * z", "space.py::test_the_image_stays_in_its_ball"),
    (
        "space.py",
        "jax.random.key(index), (columns, rank)",
        "jax.random.key(0), (columns, rank)",
        "step.py::test_kernels_of_one_shape_have_bases_of_their_own",
    ),
    ("network.py", 'mode="edge")', 'mode="constant")', "predict.py::test_odd_sides_are_padded_by_the_edge_and_cropped_back"),
    (
        "network.py",
        "self.count += 1",
        "self.count += 0",
        "step.py::test_noise_keeps_the_share_that_is_not_dropped_and_layers_differ",
    ),
    (
        "network.py",
        "bernoulli(key, 1.0 - rate, shape)",
        "bernoulli(key, rate, shape)",
        "step.py::test_noise_keeps_the_share_that_is_not_dropped_and_layers_differ",
    ),
    ("fit.py", "constant_values=-1", "constant_values=0", "predict.py::test_reference_loss_is_the_mean_over_labelled_pixels"),
    # searching
    (
        "whole.py",
        "(*place, s), keys[image])",
        "(*place,), keys[image])",
        "step.py::test_every_target_member_and_step_draws_noise_of_its_own",
    ),
    (
        "whole.py",
        "(*place, s), keys[image])",
        "(s,), keys[image])",
        "step.py::test_every_target_member_and_step_draws_noise_of_its_own",
    ),
    (
        "whole.py",
        "(*place, s), keys[image])",
        "(*place, s), keys[0])",
        "execution.py::test_images_that_are_searched_together_equal_those_alone",
    ),
    (
        "whole.py",
        "leaf[i * each : (i + 1) * each]",
        "leaf[:each]",
        "execution.py::test_images_that_are_searched_together_equal_those_alone",
    ),
)
