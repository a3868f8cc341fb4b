"""Every field of the audit document: number, part, label, keys, which are required.

A later field is one key in `core/release/sections.py`; it leaves `not_yet_reported` and
appears in both reports by itself, because this table already has its place.
"""

from __future__ import annotations

from dataclasses import dataclass

PARTS: dict[str, str] = {
    "A": "Identity and integrity",
    "B": "What is released",
    "C": "The claim",
    "D": "Unit of privacy and neighbouring relation",
    "E": "Trust and threat model",
    "F": "Mechanism",
    "G": "Accounting",
    "H": "Data and public inputs",
    "I": "Implementation and security",
    "J": "Empirical audit",
    "K": "Utility and bias",
    "L": "Legal evidence",
    "M": "Audit trail and sign-off",
    "N": "Limits",
}

_TABLE = """
1 A Report | report_id* schema_version*
2 A Time | created_utc* clock_source clock_jumps_detected
3 A Software | tool.name* tool.version* tool.git_commit* tool.build_hash*
4 A Environment | env.lock_sha256* env.versions*
5 A Earlier runs | run_id parent_report_ids*
6 A Content hashes | content_hashes*
7 A Signature | signature
8 A How to check this release | verify_command*
9 B Curator and use | curator contact intended_use prohibited_use
10 B Product | product*
11 B What is released | what_is_released*
12 B Publication | publication_date licence
13 B Marking | synthetic_marking*
14 C Kind of guarantee | dp_variant*
15 C Claim (committed) | epsilon_claimed* delta*
16 C Spent | epsilon_spent* steps_committed* steps_started* steps_completed*
17 C Rounding | epsilon_rounding*
18 C ε at other δ | privacy_profile*
19 C Gaussian estimate | mu_gdp gdp_regret
20 C Original parameters | original_parameters*
21 C What the claim means | interpretation*
22 C δ against N | delta_vs_n
23 D Unit of privacy | unit_of_privacy*
24 D Records without a unit | unit_key_column units_without_key_policy*
25 D Contributions per unit | max_contributions_per_unit*
26 D ε for other units | epsilon_other_units
27 D Near duplicates | near_duplicate_policy*
28 D Neighbouring relation | neighbouring_relation*
29 D Quantities not protected | unprotected_quantities*
30 E Trust | trust.model* trust.trusted* trust.untrusted*
31 E What an attacker knows | adversary_knowledge*
32 E What the operator saw | operator_views*
33 E Network | network*
34 F Algorithm | algorithm*
35 F Clipping | clip_norm* clip_scope nan_policy*
36 F Noise | noise_multiplier* noise_std_abs* noise_dtype accumulation_dtype
37 F Sampling of batches | sampling*
38 F Divisor | normaliser*
39 F Physical batches | physical_batch_history
40 F Augmentation | augmentation_multiplicity views loss_averaging_inside_clip*
41 F Network | trainable_params frozen_parts adapters forbidden_layers_check*
42 F Averaging and learning rate | ema_lr_schedule
43 F Stopping rule | stopping_rule*
44 F Sampling of images | sampler.name sampler.steps sampler.guidance \
sampler.churn sampler.seed_policy sampler.post_filtering_rule*
45 G Accountant | accountant*
46 G Cross-checks by other accountants | cross_checks*
47 G Composition | composition*
48 G Budget ledger | budget_ledger*
49 G Lifetime budget | lifetime_budget*
50 G Choice of settings | hyperparameter_tuning*
51 H Data description | dataset_description exact_counts
52 H Declared number of records | n_public*
53 H Labels | label_source*
54 H Normalisation constants | normalisation_constants*
55 H Preprocessing | preprocessing*
56 H Exclusions | exclusions
57 H Public model | public_model*
58 H Public data | public_data
59 H Minimisation | minimisation
60 I Random numbers | rng*
61 I Floating point | floating_point*
62 I Side channels | side_channels*
63 I Metadata of the images | metadata_scrub*
64 I Storage | storage*
65 I Self-test | self_test*
66 I Known issues | known_issues
67 J Method | audit.method* audit.m* audit.threat_model* audit.confidence*
68 J Result | audit.eps_lower_bound* audit.verdict*
69 J Power | audit.power*
70 J Membership inference on real records | mia_real_records
71 J Copy check | copy_check
72 J Custodian annex | annex_warning*
73 K Utility | utility
74 K Classes | per_class_note
75 K Selection rule | selection_rule
76 L Criteria of WP29 05/2014 | wp29.singling_out wp29.linkability wp29.inference
77 L Narrative | anonymisation_narrative
78 L Expert determination | hipaa_expert_worksheet
79 L Claims not made | claims_not_made*
80 M Event log | event_log
81 M Sign-off | operator reviewer approver
82 M Retention | retention_notice
83 M Deviations | deviations*
84 N Limitations | limitations*
85 N The claim is void if | claim_void_if*
"""

CUSTODIAN_ONLY: frozenset[str] = frozenset(
    {
        "physical_batch_history",
        "exact_counts",
        "exclusions",
        "mia_real_records",
        "copy_check",
    }
)
"""Keys that are computed on private records: the public document refuses them."""


@dataclass(frozen=True, kw_only=True)
class Field:
    """One numbered field.

    Attributes:
        number: 1 to 85.
        part: Letter of its part in `PARTS`.
        label: Its name in words.
        keys: Dotted keys of its items in the document.
        required: Those without which the document is incomplete.
    """

    number: int
    part: str
    label: str
    keys: tuple[str, ...]
    required: tuple[str, ...]


def _parse(line: str) -> Field:
    head, _, keys = line.partition(" | ")
    number, part, label = head.split(" ", 2)
    names = keys.split()
    return Field(
        number=int(number),
        part=part,
        label=label,
        keys=tuple(name.rstrip("*") for name in names),
        required=tuple(name.rstrip("*") for name in names if name.endswith("*")),
    )


FIELDS: tuple[Field, ...] = tuple(_parse(line) for line in _TABLE.strip().splitlines())
KEYS: frozenset[str] = frozenset(key for field in FIELDS for key in field.keys)
