"""Page conversion, pages per second: `python -m benchmarks.browser_pages [--peer-python FILE] [--write]`.

Five kinds of generated pages, and a few hard ones whose last words must not be lost. With --peer-python, the
interpreter of an environment that has the public package (`pip install gpt-oss`, 0.0.9), the same pages go through
its conversion, in turns with ours. Times are processor seconds, medians of rounds in fresh processes; --write saves
everything under results/.
"""

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULT = Path(__file__).parent / "results" / "browser_pages.json"
WORDS = ["the", "of", "model", "page", "text", "light", "river", "stone", "bright", "under", "seven", "letter", "music"]
HARD_SECONDS = 60
# Runs in either environment: both packages have the same function under the same name.
WORKER = """
import json, re, sys, time
from gpt_oss.tools.simple_browser.page_contents import process_html
pages = json.load(open(sys.argv[1]))
process_html(html=pages[0], url="https://example.com/a", title=None, display_urls=True)
started = time.process_time()
texts = [process_html(html=page, url="https://example.com/a", title=None, display_urls=True).text for page in pages]
print(json.dumps({
    "seconds": time.process_time() - started,
    # Not ru_maxrss: on Linux a new program starts with its parent's.
    "megabytes": int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) // 1024,
    "kept": {mark: sum(mark in text for text in texts) / len(texts) for mark in ("ENDWORD", "\U0001f600", "MATHWORD")},
}))
"""


def prose(rng: random.Random, words: int) -> str:
    """Words with links, emphasis and entities among them."""
    pieces = []
    for number in range(words):
        word = rng.choice(WORDS)
        style = rng.random()
        if style < 0.03:
            word = f'<a class="link" href="/wiki/{word}_{number}" title="{word}">{word} <i>{number}</i></a>'
        elif style < 0.06:
            word = f'<b>{word}</b><sup id="r{number}"><a href="#n{number}">[{number}]</a></sup>'
        elif style < 0.08:
            word = f"&ldquo;{word}&rdquo; &amp; &nbsp;"
        pieces.append(word)
    return " ".join(pieces)


def table(rng: random.Random, rows: int) -> str:
    """A table of data with a header."""
    cells = "".join(f"<tr><td>{prose(rng, 3)}</td><td>{n}</td><td>{n * 7 % 13}</td></tr>\n" for n in range(rows))
    return f"<table class='data'><tr><th>name</th><th>n</th><th>m</th></tr>{cells}</table>"


def document(body: str) -> str:
    """A page around `body` with what pages carry: styles, scripts, navigation, an emoji, a formula, a last word."""
    menu = "".join(f'<li class="m"><a href="/section/{n}"><span>Section {n}</span></a></li>' for n in range(40))
    script = "<script>" + "function f(a){if(a<b){return '</p>'}}\n" * 100 + "</script>"
    return (
        f"<!DOCTYPE html><html><head><title>T</title><style>{'.a{color:red}' * 200}</style>{script}</head><body>"
        f"<nav><ul>{menu}</ul></nav><main>{body}<p>\U0001f600 <math><mi>MATHWORD</mi></math></p></main>"
        f"<footer><div><div><p>ENDWORD</p></div></div></footer>{script}</body></html>"
    )


def generated_pages(seed: int = 5) -> dict[str, list[str]]:
    """Kinds of pages to how many of each; the same pages for the same seed."""
    rng = random.Random(seed)

    def article(paragraphs: int) -> str:
        text = "".join(f"<h2>Part {n}</h2><p>{prose(rng, 120)}</p>" for n in range(paragraphs))
        return document(f"<article>{text}</article>")

    def front_page() -> str:
        cards = "".join(
            f'<div class="card"><a href="/n/{n}"><img src="i{n}.jpg" alt="photo {n}"><h3>{prose(rng, 6)}</h3></a>'
            f"<div><span>{prose(rng, 12)}</span></div></div>"
            for n in range(120)
        )
        return document(cards)

    return {
        "article 30 kB": [article(15) for _ in range(20)],
        "front page 100 kB": [front_page() for _ in range(10)],
        "tables 150 kB": [document(table(rng, 1000)) for _ in range(5)],
        "long article 1 MB": [article(600)],
        "article 10 MB": [article(6000)],
    }


HARD_PAGES = {
    "5,000 unclosed divs": "<div>x" * 5000 + "ENDWORD",
    "300,000 list items": "<ul>" + "<li>x" * 300_000 + "</ul>",
    "200,000 links": "".join(f"<a href=/{n}>l{n}</a> " for n in range(200_000)) + "ENDWORD",
    "1,000,000 <": "<" * 1_000_000,
    "1,000 tables in tables": "<table><tr><td>x" * 1000 + "ENDWORD",
    "empty": "",
}


def convert(python: str, pages: list[str], limit: float) -> dict:
    """Convert `pages` in a new process of `python`: its report, or why there is none."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pages.json"
        path.write_text(json.dumps(pages))
        own = {"cwd": ROOT} if python == sys.executable else {"cwd": folder}
        try:
            done = subprocess.run(
                [python, "-c", WORKER, str(path)], capture_output=True, text=True, timeout=limit, check=False, **own
            )
        except subprocess.TimeoutExpired:
            return {"failed": f"more than {limit:g} s"}
    if done.returncode:
        return {"failed": done.stderr.strip().splitlines()[-1][:200]}
    return json.loads(done.stdout)


def speed(pythons: dict[str, str], pages: list[str], rounds: int) -> dict[str, dict]:
    """Median pages per second of each environment, in turns."""
    reports: dict[str, list[dict]] = {name: [] for name in pythons}
    for _ in range(rounds):
        for name, python in pythons.items():
            reports[name].append(convert(python, pages, 900))
    rows: dict[str, dict] = {}
    for name, rounds_of in reports.items():
        failed = [report for report in rounds_of if "failed" in report]
        if failed:
            rows[name] = failed[0]
            continue
        seconds = statistics.median(report["seconds"] for report in rounds_of)
        rows[name] = {
            "pages_per_s": round(len(pages) / seconds, 2),
            "mb_per_s": round(sum(map(len, pages)) / seconds / 1e6, 2),
            "peak_mb": max(report["megabytes"] for report in rounds_of),
            "kept": rounds_of[0]["kept"],
        }
    return rows


def machine() -> dict[str, object]:
    """Who measured."""
    git = ["git", "describe", "--always", "--dirty"]
    revision = subprocess.run(git, capture_output=True, text=True, check=False, cwd=ROOT).stdout.strip()
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "git": revision,
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in ("lxml", "html2text")},
    }


def main() -> None:
    """Run everything, print a line per case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer-python", help="interpreter with the public gpt-oss package")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help=f"save {RESULT.relative_to(ROOT)}")
    arguments = parser.parse_args()
    pythons = {"ours": sys.executable} | ({"public": arguments.peer_python} if arguments.peer_python else {})
    report: dict = {"machine": machine(), "pages": {}, "hard": {}}

    def finished(part: str, kind: str) -> None:
        print(kind, json.dumps(report[part][kind], ensure_ascii=False), flush=True)
        if arguments.write:
            RESULT.parent.mkdir(exist_ok=True)
            RESULT.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")

    for kind, pages in generated_pages().items():
        report["pages"][kind] = speed(pythons, pages, arguments.rounds)
        finished("pages", kind)
    for kind, html in HARD_PAGES.items():
        report["hard"][kind] = {name: convert(python, [html], HARD_SECONDS) for name, python in pythons.items()}
        finished("hard", kind)


if __name__ == "__main__":
    main()
