#!/usr/bin/env python3
"""Rendering, batching, optimizer and resuming: python training_test.py (needs requirements.txt; about a minute)."""
import math
import os
import random
import subprocess
import sys
import tempfile
import unittest

import torch

import architecture
import batches
import cases
import draft
import export
import lookups
import marks
import optimizer
import render
import tasks_recall
import train
import vocabulary
import workers

FOLDER = tempfile.mkdtemp()
vocabulary.write(f"{FOLDER}/tekken.json")
RENDERER, TASKS = render.Renderer(f"{FOLDER}/tekken.json"), cases.registry()
WORDS, FIND = marks.Words(RENDERER), lookups.Lookups(RENDERER)


def some(count=6):
    return [cases.make(t, 11, i, TASKS) for t in TASKS if t not in tasks_recall.SLOW for i in range(count)]


class Rendering(unittest.TestCase):
    def test_prompt_and_answer_begin_with_the_prompt_and_only_the_answer_follows(self):
        for case in some():
            prompt, _ = RENDERER.prompt(case)
            whole, learnt, _ = RENDERER.whole(case)
            self.assertEqual(whole[:len(prompt)], prompt)
            self.assertTrue(all(learnt[len(prompt):]))
            self.assertFalse(learnt[len(prompt) - 1])
            self.assertEqual(whole[-1], render.EOS)

    def test_every_assistant_turn_is_learnt_and_nothing_else(self):
        for case in some():
            whole, learnt, _ = RENDERER.whole(case)
            turns = sum(m["role"] == "assistant" for m in case.request["messages"]) + 1
            ends = [i for i, t in enumerate(whole) if t == render.EOS]
            self.assertEqual(len(ends), turns)
            self.assertTrue(all(learnt[i] for i in ends))
            self.assertAlmostEqual(sum(batches.turn_weights(learnt)),
                                   sum(n ** 0.5 for n in turn_lengths(learnt)), places=6)

    def test_a_prompt_has_a_place_for_every_row_of_its_pictures(self):
        for case in some():
            ids, images = RENDERER.prompt(case)
            self.assertEqual(ids.count(10), sum(i.shape[1] * i.shape[2] // 784 for i in images))


def turn_lengths(learnt):
    out, run = [], 0
    for x in learnt + [False]:
        if x:
            run += 1
        elif run:
            out.append(run)
            run = 0
    return out


class Batching(unittest.TestCase):
    def test_jumped_positions_rise_and_stay_below_the_context(self):
        rng = random.Random(3)
        for _ in range(300):
            length = rng.randrange(1, 600)
            positions = batches.jumped(length, rng)
            self.assertEqual(len(positions), length)
            self.assertEqual(positions, sorted(set(positions)))
            self.assertLess(positions[-1], 16384)

    def test_a_step_has_the_same_samples_again_and_micro_batches_lose_none(self):
        first, again = (batches.samples_of_step(1, 5, batches.SHARES, 2000, RENDERER, TASKS) for _ in range(2))
        self.assertEqual([s.ids for s in first], [s.ids for s in again])
        split = [s for b in batches.micro_batches(first, 600) for s in b]
        self.assertEqual(sorted(s.ids for s in split), sorted(s.ids for s in first))

    def test_the_logits_of_a_padded_batch_are_those_of_each_sample_alone(self):
        import architecture
        model = architecture.build().eval().double()   # in float32 the sharp attention of the start makes rounding large
        samples = [batches.Sample(cases.make(t, 12, 0, TASKS), RENDERER) for t in ("who", "picture", "picture_two", "sum_think")]
        with torch.no_grad():
            together, _, _, owner = batches.forward(model, samples)
            for n, s in enumerate(samples):
                alone, _, _, _ = batches.forward(model, [s])
                torch.testing.assert_close(together[owner == n], alone, atol=1e-10, rtol=1e-9)


class Marks(unittest.TestCase):
    def test_a_token_is_told_the_words_of_what_is_drawn_in_it(self):
        size, image = [84, 56], torch.zeros(3, 56, 84)
        picture = {"size": size, "marks": [[2, 2, 40, 24, "small red circle top left"], [57, 29, 83, 55, "large blue square bottom right"]]}
        looks, places = marks.targets(WORDS, [picture], [image])
        def named(row):
            return {name for name, rank in WORDS.rank.items() if row[rank] > 0} or {"nothing"}
        self.assertEqual([named(r) for r in looks], [{"small", "red", "circle"}] * 2 + [{"nothing"}] * 3 + [{"large", "blue", "square"}])
        self.assertEqual(named(places[5]), {"large", "blue", "square", "bottom", "right"})
        torch.testing.assert_close(looks.sum(1), torch.ones(6))

    def test_each_digit_has_one_token_and_its_number_in_the_row(self):
        for i in range(60):
            case = cases.make("picture_digits", 5, i, TASKS)
            _, images = RENDERER.prompt(case)
            _, places = marks.targets(WORDS, case.marks, images)
            for name, digit in zip(("first", "second", "third", "fourth"), case.marks[0]["marks"]):
                found = places[places[:, WORDS.rank[name]] > 0]
                self.assertEqual(len(found), 1)
                self.assertGreater(float(found[0, WORDS.rank[digit[-1][-1]]]), 0)

    def test_the_loss_is_zero_for_the_right_distribution_and_reaches_the_tower_alone(self):
        model = architecture.build()
        case = cases.make("picture", 6, 0, TASKS)
        _, images = RENDERER.prompt(case)
        target, _ = marks.targets(WORDS, case.marks, images)
        total, count = marks.loss(model, WORDS, torch.cat(batches.image_features(model, images)), target)
        self.assertGreater(float(total), 0)
        self.assertGreater(float(count), 0)
        total.backward()
        moved = {n.split(".")[1] for n, p in model.named_parameters() if p.grad is not None and float(p.grad.abs().sum()) > 0}
        self.assertEqual(moved, {"vision_tower", "multi_modal_projector"})


class Lookups(unittest.TestCase):
    def test_calls_look_at_their_own_tool_and_all_look_at_its_name(self):
        for i in range(60):
            ids, learnt, _ = RENDERER.whole(cases.make("tool_rivals", 7, i, TASKS))
            matched, named = 0, set()
            for heads, at, places in FIND(ids):
                if heads is lookups.SPELL:
                    continue
                before, places = RENDERER.text(ids[:at + learnt[at]]), sorted(places)
                text = RENDERER.text([ids[n] for n in places])
                if heads is lookups.MATCH:
                    entry = RENDERER.text(ids[:places[0]])
                    self.assertTrue(entry.endswith('"properties": {"'))
                    text = entry.rpartition('"function": {"name": "')[2].partition('"')[0]
                    self.assertEqual(ids[at + 1], ids[places[0]])
                    matched += 1
                elif learnt[at]:
                    self.assertEqual([9, 32], [ids[places[0] - 1], ids[places[-1] + 1]])   # [TOOL_CALLS], [ARGS]
                    named.add(text)
                else:
                    self.assertIn(text, named)
                    self.assertEqual(before.rpartition('"function": {"name": "')[2].partition('"')[0], text)
                    continue
                self.assertTrue(before.endswith(text + '{"'))
            self.assertEqual(matched, ids.count(9))

    def test_strings_cut_differently_are_looked_up_by_letters(self):
        differently = after = 0
        for i in range(60):
            ids, learnt, _ = RENDERER.whole(cases.make("tool_rivals", 7, i, TASKS))
            for heads, at, places in FIND(ids):
                if heads is not lookups.SPELL:
                    continue
                self.assertTrue(learnt[at])
                said = RENDERER.text(ids[:at + 1]).rpartition('"')[2]
                rest = RENDERER.text(ids[at + 1:]).partition('"')[0]
                self.assertTrue(said)
                before, source, behind = (RENDERER.text(part) for part in (ids[:places[0]], ids[places[0]:places[0] + 1], ids[places[0] + 1:]))
                cuts = [n for n in range(len(source)) if (before + source[:n]).endswith(said) and (source[n:] + behind).startswith(rest)]
                self.assertEqual(len(cuts), 1, (said, rest, source))
                differently += cuts[0] > 0 or ids[places[0]] != ids[at + 1]
                after += ids[places[0]] == ids[at + 1] and ids[places[0] - 1] != ids[at]
        self.assertGreater(min(differently, after), 10)

    def test_the_loss_is_that_of_the_attention_of_transformers(self):
        model = architecture.build().eval()
        samples = [batches.Sample(cases.make(t, 3, i, TASKS), RENDERER, None, WORDS, FIND) for t in ("tool_rivals", "who") for i in range(2)]
        expected, terms = 0.0, 0
        with torch.no_grad():
            *_, more = batches.forward(model, samples, WORDS)
            model.model.language_model.set_attn_implementation("eager")
            for s in samples[:2]:
                seen = model.model.language_model(inputs_embeds=model.get_input_embeddings()(torch.tensor([s.ids])), output_attentions=True)
                for heads, at, places in s.lookups:
                    for layer, head in heads:
                        expected -= float(seen.attentions[layer][0, head, at, places].log().mean()) + math.log(len(places))
                        terms += 1
        total, count = more["lookups"]
        self.assertEqual(count, terms)
        self.assertAlmostEqual(float(total), expected, delta=1e-3 * expected)


class Start(unittest.TestCase):
    def test_published_weights_are_read_back(self):
        folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../models/demo")
        model = architecture.build()
        architecture.load(model, folder)
        from safetensors.torch import load_file
        stored = load_file(f"{folder}/model.safetensors")
        name = "model.language_model.layers.1.mlp.up_proj.weight"
        found = dict(model.named_parameters())[name]
        torch.testing.assert_close(found.detach(), stored[name].float() * stored[name.replace(".weight", ".weight_scale_inv")].float()
                                   if name.replace(".weight", ".weight_scale_inv") in stored else stored[name].float())
        self.assertGreater(float(found.detach().abs().max()), 1e-3)

    def test_a_fresh_model_repeats_a_list_of_words_it_has_read(self):
        import architecture
        model = architecture.build().eval()
        words = torch.randperm(7000, generator=torch.Generator().manual_seed(2))[:40] + 1000
        with torch.no_grad():
            said = model(input_ids=torch.cat([words, words]).unsqueeze(0)).logits[0].argmax(-1)
        right = (said[len(words):-1] == words[1:]).sum()
        self.assertGreater(int(right), 26)   # of 39

    def test_tokens_with_and_without_a_space_are_matched_by_their_text(self):
        pairs = vocabulary.without_space()
        self.assertGreater(len(pairs), 500)
        for token, bare in pairs.items():
            self.assertEqual(RENDERER.text([token]), " " + RENDERER.text([bare]))


class DraftHead(unittest.TestCase):
    def test_a_step_from_a_place_sees_what_a_program_would_have_in_its_cache(self):
        head, hidden = draft.Draft().double().eval(), architecture.CONFIG["text_config"]["hidden_size"]
        n, generator = 7, torch.Generator().manual_seed(4)
        embeds, given = (torch.randn(1, n + draft.STEPS, hidden, generator=generator, dtype=torch.float64) for _ in range(2))
        positions = (torch.arange(n + draft.STEPS) * 5).unsqueeze(0)
        with torch.no_grad():
            states = head(embeds, given, positions)
            for place in range(n):
                inputs = [head.eagle_linear(torch.cat([embeds[:, p + 1], given[:, p]], -1)) for p in range(place + 1)]
                for step in range(draft.STEPS):   # each of them through the whole head again, without a cache
                    at = torch.cat([positions[:, :place + 1], positions[:, place + 1:place + 1 + step]], 1)
                    state = head.body(inputs_embeds=torch.stack(inputs, 1), position_ids=at, attention_mask=torch.ones_like(at),
                                      use_cache=False).last_hidden_state[:, -1]
                    torch.testing.assert_close(states[step][:, place], state, atol=1e-9, rtol=1e-9)
                    inputs.append(head.eagle_linear(torch.cat([embeds[:, place + 2 + step], state], -1)) if step + 1 < draft.STEPS else None)

    def test_the_published_file_is_read_back_within_the_rounding_of_fp8(self):
        head, folder = draft.Draft(), f"{FOLDER}/head"
        weights = {draft.long_name(k): v.to(torch.bfloat16) for k, v in head.state_dict().items()}
        ranges = {draft.long_name(name): 2.0 for name, m in head.named_modules() if isinstance(m, torch.nn.Linear)}
        export.write_mistral(folder, None, export.to_fp8(weights, ranges), True, draft.SIZES)
        self.assertEqual(sorted(os.listdir(folder)), ["consolidated.safetensors", "params.json"])
        found = draft.load_head(folder).state_dict()
        for name, w in head.state_dict().items():
            self.assertLessEqual(float((found[name] - w).abs().max()), float(w.abs().max()) / 16)
            self.assertLess(float((found[name] - w).norm()), 0.04 * float(w.norm()))


class Training(unittest.TestCase):
    def test_an_orthogonal_update_has_singular_values_near_one(self):
        g = torch.randn(3, 64, 160, generator=torch.Generator().manual_seed(1))
        values = torch.linalg.svdvals(optimizer.orthogonal(g))
        self.assertGreater(float(values.min()), 0.5)
        self.assertLess(float(values.max()), 1.3)

    def test_gradients_are_taken_where_the_fp8_form_has_the_weights(self):
        model = architecture.build()
        before = {k: v.clone() for k, v in model.state_dict().items()}
        linears = {f"{name}.weight" for name in export.text_linears(model)}
        self.assertEqual(len(linears), 6 * 7)
        published = export.to_fp8({k: v.to(torch.bfloat16) for k, v in before.items()}, {k.removesuffix(".weight"): 1.0 for k in linears})
        changed = 0
        with train.rounded_to_fp8(model):
            for name, w in model.state_dict().items():
                wanted = before[name]
                if name in linears:
                    wanted = published[name].float() * published[name.removesuffix(".weight") + ".weight_scale_inv"].float()
                    changed += not torch.equal(w, before[name])
                self.assertTrue(torch.equal(w, wanted), name)
        self.assertGreater(changed, 30)   # some are zero at the start
        for name, w in model.state_dict().items():
            self.assertTrue(torch.equal(w, before[name]))

    def test_two_processes_give_the_gradients_of_one(self):
        samples = [s for s in (batches.Sample(c, RENDERER, None, WORDS, FIND) for c in some(1)) if len(s.ids) < 600]
        without_pictures = [s for s in samples if not s.images]
        self.assertTrue(any(s.lookups for s in without_pictures))
        model = architecture.build(1)
        shares = {"looks": 0.1, "places": 0.1, "lookups": 0.3}
        both = workers.Workers(model, 2, 400, WORDS, shares, False)
        for step in (samples, without_pictures):   # the second leaves the tower without a gradient
            found = []
            for w in (workers.Workers(model, 1, 400, WORDS, shares, False), both):
                by_task = w.train_step(step)
                found.append(({k: tuple(v) for k, v in by_task.items()}, [p.grad for p in model.parameters()]))
                for p in model.parameters():
                    p.grad = None
            (tasks_of_one, one), (tasks_of_two, two) = found
            self.assertEqual(tasks_of_one.keys(), tasks_of_two.keys())
            for task, (loss, places) in tasks_of_one.items():
                self.assertEqual(places, tasks_of_two[task][1])
                self.assertAlmostEqual(loss, tasks_of_two[task][0], delta=1e-3 * places)
            for a, b in zip(one, two):
                self.assertEqual(a is None, b is None)
                if a is not None:
                    self.assertLess(float((a - b).norm()), 1e-4 * float(a.norm()) + 1e-9)
        both.close()

    def test_a_stopped_and_resumed_run_ends_with_the_same_weights(self):
        here = os.path.dirname(os.path.abspath(__file__))
        ends = []
        for name, stops in (("straight", (3,)), ("resumed", (1, 3))):
            for stop in stops:
                subprocess.run([sys.executable, f"{here}/train.py", f"{FOLDER}/{name}", "--until-step", str(stop), "--budget", "300"],
                               check=True, capture_output=True)
            ends.append(torch.load(f"{FOLDER}/{name}/checkpoint.pt", weights_only=True))
        self.assertEqual(ends[0]["tokens"], ends[1]["tokens"])
        for key, value in ends[0]["average"].items():
            torch.testing.assert_close(value, ends[1]["average"][key], atol=1e-6, rtol=1e-5)


if __name__ == "__main__":
    torch.set_num_threads(1)
    unittest.main()
