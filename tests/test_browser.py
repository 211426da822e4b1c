"""report.html in headless Chromium: as wide as a telephone, nothing is fetched, no error, and the search finds."""

import html
import json
import re
import shutil
import subprocess

import made_up_run
import pytest

from seal_jax.report import html as report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PROBE = """<body><script>
const found = {};
const look = (name, width, page) => new Promise(done => {
  const frame = document.createElement("iframe");
  frame.style.cssText = `border: 0; width: ${width}px; height: 2000px`;
  frame.onload = () => {
    const inside = frame.contentWindow, doc = frame.contentDocument;
    const shown = () => [...doc.querySelectorAll(".card, .asked")].filter(one => one.checkVisibility());
    const edits = () => shown().filter(one => !one.closest(".asked"));
    const fact = {width: inside.innerWidth, needed: doc.documentElement.scrollWidth, before: shown().length,
                  fetched: inside.performance.getEntriesByType("resource").map(one => one.name)};
    const find = doc.getElementById("find");
    find.value = "T3 HAS A"; find.oninput();
    fact.found = edits().map(one => one.textContent);
    find.value = "there is no such text"; find.oninput();
    fact.nothing = shown().length;
    find.value = ""; doc.getElementById("chosen").click();
    fact.chosen = edits().map(one => one.classList.contains("chosen"));
    doc.getElementById("chosen").click();
    fact.after = shown().length;
    found[name] = fact; done();
  };
  frame.srcdoc = page; document.body.append(frame);
});
(async () => {
  const page = PAGE;
  await look("phone", 390, page); await look("desk", 1200, page);
  document.title = "done " + JSON.stringify(found);
})();
</script>"""


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """({'phone': facts, 'desk': facts}, what the browser had to say)."""
    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    home = tmp_path_factory.mktemp("browser")
    text = report.write(made_up_run.write(home / "made-up", items=10)).read_text()
    page = json.dumps(text).replace("</", "<\\/")
    (home / "probe.html").write_text(PROBE.replace("PAGE", page))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--virtual-time-budget=20000",
             f"--user-data-dir={home / 'profile'}", "--dump-dom"]  # fmt: skip
    command = [CHROMIUM, *flags, f"file://{home / 'probe.html'}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    (told,) = re.findall(r"<title>done (.*)</title>", done.stdout)
    return json.loads(html.unescape(told)), done.stderr


@pytest.mark.parametrize("screen", ["phone", "desk"])
def test_a_page_as_wide_as_the_screen_that_fetches_nothing(seen, screen):
    facts = seen[0][screen]
    assert facts["needed"] <= facts["width"] == {"phone": 390, "desk": 1200}[screen]
    assert all(name.startswith("data:") for name in facts["fetched"])
    assert not [line for line in seen[1].splitlines() if "CONSOLE" in line]


def test_search_and_filter(seen):
    facts = seen[0]["desk"]
    assert facts["before"] == facts["after"] > 3 and facts["nothing"] == 0
    assert len(facts["found"]) > 3 and all("t3 has a" in text for text in facts["found"])
    assert len(facts["chosen"]) > 3 and all(facts["chosen"])
