"""What is wrong with how services, their databases and their broker are set up, found by asking them.

Facts are gathered once, and nothing is changed by it; each check then judges them, and names its cure.
"""

from toolkit.doctor.examination import examine
from toolkit.doctor.findings import Finding, Verdict
from toolkit.doctor.targets import Target

__all__ = ["Finding", "Target", "Verdict", "examine"]
