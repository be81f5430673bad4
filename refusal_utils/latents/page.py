"""The page of latent cards: one HTML file without any other, whose table can be sorted and filtered."""

from collections.abc import Mapping, Sequence

import pandas as pd
from jinja2 import Environment

PAGE = """\
<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{{ title }}</title>
<style>
body { font: 14px Helvetica, Arial, sans-serif; color: #222; margin: 24px }
input { font: inherit; padding: 4px 8px; width: 360px }
table { border-collapse: collapse; margin-top: 12px }
th, td { border-bottom: 1px solid #ddd; padding: 4px 8px; text-align: left; vertical-align: top }
th { cursor: pointer; position: sticky; top: 0; background: #f3f3f3 }
td.number { text-align: right; white-space: nowrap }
</style></head><body>
<h1>{{ title }}</h1>
<p>Click a heading to sort. <label>Filter: <input id="filter" placeholder="a word of any column"></label>
<span id="shown"></span></p>
<table id="cards"><thead><tr><th>latent</th>{% for name in columns %}<th>{{ name }}</th>{% endfor %}
<th>where it fires</th></tr></thead><tbody>
{% for latent, values in rows %}<tr><td class="number">{{ latent }}</td>
{% for value in values %}<td{% if value is number %} class="number"{% endif %}>{{ value }}</td>{% endfor %}
<td><details><summary>{{ marked[latent] | length }} prompts</summary>
{% for text in marked[latent] %}<p>{{ text | safe }}</p>{% endfor %}</details></td></tr>
{% endfor %}</tbody></table>
<script>
const body = document.querySelector("#cards tbody"), rows = [...body.rows];
const count = () => document.querySelector("#shown").textContent =
  rows.filter(row => !row.hidden).length + " of " + rows.length;
document.querySelector("#filter").addEventListener("input", event => {
  const word = event.target.value.toLowerCase();
  rows.forEach(row => row.hidden = !row.textContent.toLowerCase().includes(word)); count();
});
document.querySelectorAll("#cards th").forEach((head, column) => head.addEventListener("click", () => {
  const up = head.dataset.up !== "1", value = row => row.cells[column].textContent; head.dataset.up = up ? "1" : "";
  const numeric = rows.every(row => value(row) === "" || !isNaN(value(row)));
  rows.sort((a, b) => (numeric ? value(a) - value(b) : value(a).localeCompare(value(b))) * (up ? 1 : -1));
  body.append(...rows);
}));
count();
</script></body></html>
"""


def cards_page(table: pd.DataFrame, marked: Mapping[int, Sequence[str]], title: str) -> str:
    """The page as text. Everything in `table` is escaped; the texts of `marked` must be safe HTML."""
    template = Environment(autoescape=True).from_string(PAGE)
    rows = [(latent, own.tolist()) for latent, own in table.astype(object).iterrows()]
    return template.render(title=title, columns=list(table.columns), rows=rows, marked=marked)
