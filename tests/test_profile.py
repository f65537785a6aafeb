"""What a dataset holds, counted on the toy, whose params file says it."""

from stlib.expression import top_mean_panel
from stlib.profile import panels, profile
from stlib.splits import folds


def test_patches_are_the_cells_that_hold_a_spot(toy, toy_sections):
    found = profile(toy, toy_sections)
    assert list(found.index) == list(toy.sections) and (found["sections"] == 3).all()
    own = [toy_sections[name] for name in toy.sections["P1"]]
    assert found.loc["P1", "spots"] == sum(len(section) for section in own)
    cells = sum(len({tuple(cell) for cell in section.position // toy.levels["region"].px}) for section in own)
    assert found.loc["P1", "region patches"] == cells
    assert (found["global patches"] < found["region patches"]).all()


def test_a_gene_is_everywhere_if_every_fold_would_choose_it(toy, toy_sections):
    chosen, everywhere = panels(toy, toy_sections)
    assert chosen == top_mean_panel(list(toy_sections.values()), toy.panel.size)
    first = folds(toy, "2d")[0]
    own = set(top_mean_panel([toy_sections[name] for name in first.panel], toy.panel.size))
    assert everywhere <= own and everywhere < set(chosen)
