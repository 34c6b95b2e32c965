"""The folder of one run: what stands in it, and how it is written whole or not at all.

::

    RUN/
      config.toml      the configuration with every default written out; paths absolute, so that it can be run again
      model/           the learner: config.json and model.safetensors (see `anygrain.load`)
      labels.parquet   one line per data row: what the row's class is taken to be, and how well its labels fit
      metrics.json     everything that was measured
      report.html      the same, to look at
      log.jsonl        one JSON object per line: {"time", "event", ...}, in order of time
      conflicts.csv    only with conflicts = "soften", and only when rows contradict themselves: row, problem
      .lock            while a fit works here
      .state/          while a fit is unfinished: what it needs to go on

**labels.parquet.** Rows stand in the order of the data source. Probabilities are those of *cross-fitted* models: no
row was scored by a model that was trained on it.

==================  =======  ===========================================================================================
column              type     meaning
==================  =======  ===========================================================================================
row                 string   row id: the id column as text, or the number of the row (from 0) where there is none
class               string   the most probable class given the features and all labels of the row
probability         float    its probability
entropy             float    entropy of that distribution, in nats
predicted           string   the most probable class from the features alone
predicted_prob      float    its probability
evidence            float    log P(labels of the row | features), in nats; null where the row has no label
suspect             float    of the row's most suspect label r: max_k log P(r | k) - log P(r | features, other labels),
                             in nats, at least 0; null where the row has no label of its own
suspect_source      string   who gave that label: the column or the annotator
suspect_value       string   what it says
exact               string   the exact class given for the row, or null
given               string   all labels of the row, "department=Billing; worker_2=refund"
text                string   the first 160 characters of the text, or the first columns as "name=value"
map_x, map_y        float    place of the row on a map (`anygrain.report.row_map`); null where not placed
==================  =======  ===========================================================================================

**metrics.json.** Numbers are finite or null. Intervals are [low, high] at 95 %.

- ``format``: "anygrain-run-1"
- ``name``: name of the run folder; ``created``: ISO 8601; ``seconds``: total; ``stages``: {stage: seconds}
- ``command``: the command line; ``reload``: a line of Python; ``seed``; ``versions``: {package: version}
- ``data``: {``source``, ``rows``, ``classes`` (K), ``rows_with_labels``, ``text`` (columns), ``columns``, ``features``
  (number), ``encoder`` (in words), ``encoded`` (dimensions), ``bags`` (number, or null), ``missing`` (values)}
- ``classes``: the K names
- ``evidence``: what was read as what, a list of {``name``, ``kind``, ``source`` (file), ``columns`` (list), ``says``
  (in words), ``labels`` (number of labels: values, votes, sets), ``rows`` (data rows with at least one), ``of``
  (data rows), ``values`` (number of distinct values), ``simulated`` (true, or false)}
- ``evaluation``: null without exact rows, else
    - ``rows``, ``folds``, ``method`` (one sentence: how the rows were kept out)
    - ``entries``: a list, ours first, of {``key``, ``name``, ``ours`` (bool), ``rows``, ``correct``, ``accuracy``,
      ``interval`` (Wilson), ``log_loss`` (nats, or null), ``ece`` (10 equal-width bins, or null)}. Keys:
      ``posterior`` (features and the row's other labels), ``features`` (features alone), ``exact_only`` (a model that
      was trained on the exact rows alone), ``labels`` (the row's other labels together, without features),
      ``labels:NAME`` (one kind alone), ``majority`` (the most frequent exact class)
    - ``reliability``: of ``posterior``, a list of {``low``, ``high``, ``rows``, ``confidence``, ``accuracy``,
      ``interval``}, empty bins left out; ``reliability_features``: of ``features``
- ``held_out``: {``evidence_per_row``: mean log P(labels of a row | features) over rows with labels, ``rows``,
  ``chance``: the same for uniform probabilities}
- ``conflicts``: {``rows``: number of rows that contradict themselves, ``mode``: "stop" or "soften", ``examples``:
  list of {``row``, ``problem``}, at most 20, ``file``: "conflicts.csv" or null}
- ``agreement``: for every two kinds that speak of the same rows {``first``, ``second``, ``rows``, ``agree``,
  ``share``, ``interval``}: how often the class most probable by the first alone is possible, or most probable, by
  the second
- ``sources``: annotators, rules and label columns, a list of {``name``, ``part`` (name of the evidence), ``kind``,
  ``labels``, ``accuracy`` (expected, by the model and all other labels), ``interval``, ``agreement`` (share of its
  labels that another label of the same row confirms, or null), ``compared`` (number of such labels), ``suspects``}
- ``confusion``: for every parent class (one entry with ``parent`` null without a taxonomy) {``parent``, ``classes``,
  ``matrix`` (rows: class given the features and all labels; columns: class predicted from the features), ``rows``,
  ``inside`` (share of rows whose prediction stays inside the parent)}; at most 60 classes per entry, most frequent
  first, the rest under "other"
- ``classes_table``: a list of {``class``, ``expected`` (sum of posterior), ``exact`` (exact rows), ``labels`` (labels
  that name it)}
- ``worst``: the 20 most suspect labels, a list of {``row``, ``source``, ``given``, ``proposed``, ``probability``,
  ``suspect``, ``text``}; ``suspects``: number of labels in doubt (suspect above 3 nats)
- ``learner``: {``chosen``: what the fit settled on, in words, ``temperature``, ``rounds``, ``exact_only_won`` (bool)}
- ``history``: per round of the final fit {``round``, ``evidence`` (per row, fitted), ``held_out`` (per row), and
  whatever else the learner tells}
- ``warnings``: sentences; ``notes``: sentences
"""
