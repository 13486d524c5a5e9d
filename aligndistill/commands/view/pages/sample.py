"""One prompt: every model's answers side by side, with differences, and all that the judge was asked about it."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from aligndistill.commands.view.flags import JUDGES_DIFFER, flips
from aligndistill.commands.view.index import CANARY, EVALUATION, LABELLING, REPEATED, SECOND
from aligndistill.commands.view.pages.samples import answers_of, prompt_text
from aligndistill.commands.view.query import Index
from aligndistill.commands.view.rows import prompt_verdicts
from aligndistill.commands.view.run_folder import RunFolder
from aligndistill.commands.view.sample_query import SampleQuery
from aligndistill.commands.view.site import Page, Site, UnknownPage
from aligndistill.evaluation.votes import Vote
from aligndistill.judges.templates import LISTWISE_FIELDS, PAIRWISE_FIELDS, RUBRIC_FIELDS, load_template
from aligndistill.records import content_hash
from aligndistill.reporting.texts import word_diff
from aligndistill.runs.votes import read_votes

UNREADABLE = "unreadable"
TEMPLATE_FIELDS = {"pairwise": PAIRWISE_FIELDS, "listwise": LISTWISE_FIELDS, "rubric": RUBRIC_FIELDS}


def sample_page(site: Site, run: RunFolder, prompt: str, values: Mapping[str, str]) -> Page:
    """The page of a prompt, as one of a query's results.

    Raises:
        UnknownPage: there is no such prompt.
    """
    with site.index(run) as index:
        number = index.number_of(prompt)
        if number is None:
            raise UnknownPage(f"There is no prompt '{prompt}' in this run.")
        query = SampleQuery.read(values, index.models)
        beside = index.neighbours(query, number)
        against = values.get("d", "start")
        against = against if against in index.models else ""
        (row,) = index.prompts([number])
        answers = answers_of(index, number, [name for name in index.models if name not in query.hidden])
        candidates = _candidates(index, number)
        letters = {one["key"]: one["letter"] for one in candidates}
        return Page(
            "sample.html",
            {
                "run": run,
                "query": query,
                "searched": query.in_words(),
                "prompt": row,
                "text": prompt_text(row["record"]),
                "place": beside.place,
                "total": beside.total,
                "before": beside.before,
                "after": beside.after,
                "against": against,
                "models": list(index.models),
                "samples": _side_by_side(answers, against),
                "decisions": _decisions(index, number, read_votes(run.path)),
                "candidates": candidates,
                "labelled": _pairs_of(index, number, LABELLING, letters),
                "repeats": _pairs_of(index, number, REPEATED, letters),
                "second": _pairs_of(index, number, SECOND, letters),
                "judges_differ": bool(row["flags"] & JUDGES_DIFFER),
                "canaries": _canaries(index, number),
                "template": _template(run),
            },
        )


def _side_by_side(answers: Sequence[dict[str, Any]], against: str) -> list[list[dict[str, Any]]]:
    """The answers of each sample, each with its difference from the model that is compared with."""
    of_sample: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
    for answer in answers:
        of_sample[answer["sample"]].append(answer)
    for some in of_sample.values():
        base = next((one for one in some if one["model"] == against), None)
        start = next((one for one in some if one["model"] == "start"), None)
        for answer in some:
            compared = base is not None and answer["model"] != against
            answer["diff"] = word_diff(base["text"], answer["text"]) if compared and base is not None else None
            answer["equals"] = base["model"] if compared and base is not None and base["text"] == answer["text"] else ""
            for name in ("truth", "reward"):
                known = start is not None and answer is not start and None not in (answer[name], start[name])
                answer[f"{name}_change"] = answer[name] - start[name] if known and start is not None else 0.0
    return [of_sample[number] for number in sorted(of_sample)]


def _people(votes: Mapping[str, Sequence[Vote]], pair: tuple[str, ...], model: str, opponent: str, key: str) -> list[str]:
    """What each voter decided on a pair."""
    found = []
    for voter, some in votes.items():
        for vote in some:
            if vote.pair == pair and vote.queue != "repeat" and vote.preferred is not None:
                lower_is_ours = pair[1] == key
                choice = {0.5: vote.vote.replace("_", " "), 1.0: model if lower_is_ours else opponent}
                found.append(f"{voter}: {choice.get(vote.preferred, opponent if lower_is_ours else model)}")
    return found


def _decisions(index: Index, number: int, votes: Mapping[str, Sequence[Vote]]) -> list[dict[str, Any]]:
    """What the judge said of each model's answer against the start's, and the teacher's if they were compared."""
    names = {identity: name for name, identity in index.models.items()}
    prompt = index.prompt_id(number)
    verdicts = _verdicts(index, number, EVALUATION)
    asked: defaultdict[tuple[str, str], list[float | None]] = defaultdict(list)
    for one in verdicts:
        asked[one["first"], one["second"]].append(one["p"])
    judged = prompt_verdicts((one["first"], one["second"], one["p"]) for one in verdicts)
    answers = index.db.execute("select author, sample, key from answers where prompt = ? order by author, sample", (number,))
    key_of = {(names[author], sample): key for author, sample, key in answers}
    found = []
    for opponent in ("start", "teacher"):
        for (model, sample), key in key_of.items():
            other = key_of.get((opponent, sample))
            if model in (opponent, "teacher") or other is None or (opponent == "teacher" and model == "start"):
                continue
            about = [one for one in verdicts if {one["first"], one["second"]} == {key, other} and one["second"]]
            grades = [one for one in verdicts if not one["second"] and one["first"] in (key, other)]
            if not about and (opponent == "teacher" or not grades) and key != other:
                continue
            label = {key: model, other: opponent}
            p = judged.win_probability(key, other)
            found.append(
                {
                    "model": model,
                    "opponent": opponent,
                    "sample": sample,
                    "result": _result(model, opponent, p, key == other),
                    "flip": flips(asked, key, other),
                    "orders": [_order(one, label) for one in about] or [_grade(one, label) for one in grades if key != other],
                    "people": _people(votes, (prompt, *sorted((key, other))), model, opponent, key),
                    "both": len({(one["first"], one["second"]) for one in about}) > 1,
                    "unreadable": any(one["unreadable"] for one in (*about, *grades)),
                }
            )
    return found


def _result(model: str, opponent: str, p: float | None, same: bool) -> str:
    if same:
        return f"{model} and {opponent} wrote the same text"
    if p is None:
        return f"no readable verdict on {model} and {opponent}"
    if p == 0.5:
        return f"{model} and {opponent} tie"
    winner, loser = (model, opponent) if p > 0.5 else (opponent, model)
    return f"{winner} beats {loser}"


def _verdicts(index: Index, number: int, scope: int) -> list[dict[str, Any]]:
    """Verdicts with their records: reply, thoughts, members of a panel."""
    rows = index.rows("select * from verdicts where prompt = ? and scope = ? order by file, offset", (number, scope))
    return [{**row, "unreadable": bool(row["unparsed"]), "members": row["record"].get("members", ())} for row in rows]


def _order(verdict: Mapping[str, Any], label: Mapping[str, str]) -> dict[str, Any]:
    """A comparison in words: what was shown first, and what the judge chose."""
    first, second = label.get(verdict["first"], "?"), label.get(verdict["second"], "?")
    p, record = verdict["p"], verdict["record"]
    chosen = UNREADABLE if p is None else "a tie" if p == 0.5 else f"A ({first})" if p > 0.5 else f"B ({second})"
    return {
        "asked": f"A = {first}, B = {second}",
        "chosen": chosen,
        "p": p if record.get("probability_first") is not None else None,
        "judge": record["judge"],
        "reply": record.get("reply"),
        "thoughts": record.get("thoughts", ""),
        "usage": record.get("usage", {}),
        "unreadable": p is None,
        "members": [
            _order({**member, "p": _member_p(member), "record": member}, label)
            for member in verdict.get("members", ())
            if member.get("kind") == "comparison"
        ],
    }


def _member_p(member: Mapping[str, Any]) -> float | None:
    if member["outcome"] == "unparsed":
        return None
    p = member.get("probability_first")
    return {"first": 1.0, "tie": 0.5, "second": 0.0}[member["outcome"]] if p is None else float(p)


def _grade(verdict: Mapping[str, Any], label: Mapping[str, str]) -> dict[str, Any]:
    record, value = verdict["record"], verdict["p"]
    return {
        "asked": label.get(verdict["first"], "?"),
        "chosen": UNREADABLE if value is None else f"grade {value:.4g}",
        "p": None,
        "judge": record["judge"],
        "reply": record.get("reply"),
        "thoughts": record.get("thoughts", ""),
        "usage": record.get("usage", {}),
        "unreadable": value is None,
        "members": [],
    }


def _candidates(index: Index, number: int) -> list[dict[str, Any]]:
    """The candidates that training learned from, best first, with rank and score."""
    names = {identity: name for name, identity in index.authors.items()}
    rows = index.rows("select * from candidates where prompt = ?", (number,))
    ranked: dict[str, tuple[int, float]] = {}
    ready = []
    for ranking in index.rows("select * from rankings where prompt = ?", (number,)):
        for place, response in enumerate(ranking["record"]["responses"], 1):
            ranked[response["candidate_id"]] = (place, response["score"])
            ready.append({"key": response["candidate_id"], "record": response, "author_name": response["author"]})
    found = [{**row, "author_name": names[row["author"]]} for row in rows] or ready
    for one in found:
        one["rank"], one["score"] = ranked.get(one["key"], (None, None))
        one["text"] = one["record"]["text"]
        one["truncated"] = one["record"].get("finish") == "length"
    found.sort(key=lambda one: (one["rank"] is None, one["rank"] or 0))
    for place, one in enumerate(found):
        one["letter"] = chr(ord("A") + place) if place < 26 else f"Z{place}"
    return found


def _pairs_of(index: Index, number: int, scope: int, letters: Mapping[str, str]) -> list[dict[str, Any]]:
    """The verdicts on candidates: both orders of a pair together."""
    verdicts = _verdicts(index, number, scope)
    asked: defaultdict[tuple[str, str], list[float | None]] = defaultdict(list)
    groups: defaultdict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
    label = {key: f"candidate {letter}" for key, letter in letters.items()}
    for one in verdicts:
        asked[one["first"], one["second"]].append(one["p"])
        groups[tuple(sorted(filter(None, (one["first"], one["second"]))))].append(one)
    return [
        {
            "name": " and ".join(letters.get(key, "?") for key in sorted(pair, key=lambda key: letters.get(key, "?"))),
            "flip": len(pair) == 2 and flips(asked, *pair),
            "orders": [_order(one, label) if one["second"] else _grade(one, label) for one in some],
        }
        for pair, some in groups.items()
    ]


def _canaries(index: Index, number: int) -> list[dict[str, Any]]:
    """The known-bad answers that the judge was shown for this prompt."""
    found = []
    for row in index.rows("select * from verdicts where prompt = ? and scope = ?", (number, CANARY)):
        record = row["record"]
        label = {record["bad"]["id"]: "known-bad answer", record["reference"]["id"]: "candidate"}
        verdicts = [
            {"first": one.get("first", one.get("candidate")), "second": one.get("second", ""), "record": one}
            for one in record["verdicts"]
        ]
        orders = [
            _order({**one, "p": _member_p(one["record"])}, label)
            if one["second"]
            else _grade({**one, "p": one["record"]["value"]}, label)
            for one in verdicts
        ]
        won = (
            "no readable verdict"
            if row["p"] is None
            else "the known-bad answer won"
            if row["p"] > 0.5
            else "tie"
            if row["p"] == 0.5
            else "the candidate won"
        )
        texts = (record["bad"]["text"], record["reference"]["text"])
        found.append(
            {
                "kind": record["kind"],
                "won": won,
                "lost": (row["p"] or 0) > 0.5,
                "bad": texts[0],
                "reference": texts[1],
                "orders": orders,
            }
        )
    return found


def _template(run: RunFolder) -> tuple[str, str, str] | None:
    """Name, hash and text of the judge's template, if it is a built-in one."""
    judge = run.config.get("judge")
    name, kind = (str(judge.get("template")), str(judge.get("kind"))) if isinstance(judge, dict) else ("", "")
    if not name.isidentifier() or kind not in TEMPLATE_FIELDS:
        return None
    text = load_template(name, TEMPLATE_FIELDS[kind]).text
    return name, content_hash(text), text
