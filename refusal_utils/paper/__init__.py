"""The paper: its published tables as data frames, and the comparison of our numbers with them.

Joad et al., "There Is More to Refusal in Large Language Models than a Single Direction", arXiv 2602.02132. `compare`
reads what the notebooks wrote for a model and compares it with every published number; `write_report` saves the result.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "comparison": ["compare", "compare_latents"],
        "report": ["write_report"],
        "tables": ["published_cosines", "published_table"],
    },
)
