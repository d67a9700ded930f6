"""The pages' one style sheet: light and dark by the reader's own setting, at any width from 320 pixels."""

from __future__ import annotations

_HEAT = "".join(f".heat{n}{{background:color-mix(in srgb,var(--bad) {n * 7}%,transparent)}}" for n in range(10))

STYLE = (
    """
:root{--ground:#fff;--card:#f6f8fa;--text:#1b1f24;--soft:#57606a;--line:#d0d7de;--cool:#2f6fb3;--bad:#c4313b;
--warn:#a86a00;--fine:#1a7f37;color-scheme:light dark}
@media(prefers-color-scheme:dark){:root{--ground:#0d1117;--card:#161b22;--text:#e6edf3;--soft:#9aa4af;--line:#30363d;
--cool:#5b9be6;--bad:#f2606a;--warn:#dba43a;--fine:#4cc264}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--text);font:16px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:72rem;margin:0 auto;padding:1.5rem 1rem 3rem}
h1{font-size:1.6rem;margin:0 0 .25rem}
h2{font-size:1.25rem;margin:2.5rem 0 1rem;padding-bottom:.3rem;border-bottom:1px solid var(--line);
overflow-wrap:anywhere}
h3{font-size:1rem;margin:0 0 .25rem}
h4{font-size:.8rem;font-weight:600;color:var(--soft);margin:.6rem 0 0}
p{margin:.25rem 0 .6rem}
code,pre{font:.86em/1.5 ui-monospace,"DejaVu Sans Mono",Menlo,monospace}
.about,small,.logs,footer,.name,summary span{color:var(--soft)}
.about{font-size:.88rem}
.logs{padding-left:1.1rem;font-size:.88rem;overflow-wrap:anywhere}
.note,.warn{color:var(--warn)}.fine{color:var(--fine)}.bad{color:var(--bad)}.cool{color:var(--cool)}
.letter{display:inline-block;min-width:1.7em;margin-right:.5em;text-align:center;border-radius:.3em;
background:var(--cool);color:var(--ground)}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.5rem,1fr));gap:.75rem;margin-bottom:1.5rem}
.card{background:var(--card);border:1px solid var(--line);border-radius:.5rem;padding:.7rem .9rem}
.card span,.card small,.card strong{display:block}
.card span{font-size:.82rem}.card strong{font-size:1.7rem;line-height:1.25;font-variant-numeric:tabular-nums}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,27rem),1fr));gap:1rem;margin-bottom:1rem}
section{border:1px solid var(--line);border-radius:.5rem;padding:.9rem 1rem 1rem;margin:0 0 1rem;min-width:0}
.plots section{margin:0}.plots section:has(table){grid-column:1/-1}
svg{display:block;overflow:visible}
rect.cool{fill:var(--cool)}rect.bad{fill:var(--bad)}rect.warn{fill:var(--warn)}
svg:has(.marked) rect:not(.marked){opacity:.45}
rect:hover{opacity:.7}
.grid{stroke:var(--line)}
text{fill:var(--soft);font-size:11px;font-family:inherit}
.bar{width:100%;min-width:4rem;height:.7rem}
.wide{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.88rem}
th{text-align:left;font-weight:600;color:var(--soft)}
th,td{padding:.28rem .7rem .28rem 0;border-bottom:1px solid var(--line);vertical-align:middle}
tr:last-child td{border-bottom:0}
td code{white-space:nowrap}
.number{text-align:right;font-variant-numeric:tabular-nums}
[data-plot=zones] td{padding:.3rem .6rem;text-align:center}[data-plot=zones] th{white-space:nowrap;font-weight:400}
details{border-bottom:1px solid var(--line);padding:.35rem 0}
details:last-child{border-bottom:0}
summary{cursor:pointer}
summary code{font-weight:600;margin-right:1rem}summary span{font-size:.86rem;margin-right:1rem}
details p,details ul{font-size:.9rem}
pre{background:var(--card);border:1px solid var(--line);border-radius:.4rem;padding:.6rem;overflow-x:auto}
footer{margin-top:2rem;font-size:.82rem}
@media(max-width:30rem){main{padding:1rem .7rem 2rem}.cards{grid-template-columns:1fr 1fr;gap:.5rem}
.card strong{font-size:1.35rem}section{padding:.7rem .7rem .8rem}text{font-size:10px}.bar{min-width:1.2rem}
th,td{padding-right:.5rem}}
@media print{details{break-inside:avoid}}
"""
    + _HEAT
)
