"""The benchmark table: what the library costs, measured against baselines in the same run."""

from rxstage.bench.table import CASES, Case, Row, measure, run_table

__all__ = ["CASES", "Case", "Row", "measure", "run_table"]
