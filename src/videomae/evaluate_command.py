"""`videomae evaluate`, see `cli`."""

from __future__ import annotations

from pathlib import Path

from videomae.command_options import LABELLED_HELP, MODEL_HELP, add_clip, add_device, command_parser, parsed


def evaluate(arguments: list[str]) -> int:
    """Evaluate a classifier on labelled videos, averaging over several views of each."""
    from videomae.data.configs import SplitName
    from videomae.evaluation.configs import EvaluationConfig, ProtocolName

    parser = command_parser("evaluate", evaluate)
    parser.add_argument("model", help=MODEL_HELP)
    parser.add_argument("data", type=Path, help=LABELLED_HELP)
    parser.add_argument("--split", type=SplitName | None, help="rows to evaluate; default: test, else val, else all")
    parser.add_argument(
        "--protocol",
        type=ProtocolName | None,
        help="clips and crops of a published test protocol; default: as given by --views",
    )
    parser.add_class_arguments(EvaluationConfig)
    add_clip(parser)
    add_device(parser)
    parser.add_argument("--out", type=Path, help="JSON file for the results of each video")
    parser.add_argument("--report", type=Path, help="folder for an HTML page, evaluation.json and two CSV files")
    options = parsed(parser, arguments)

    from videomae.evaluation.evaluator import evaluate_folder
    from videomae.report.evaluation_page import check_report_folder, write_evaluation_page

    if options.report is not None:
        check_report_folder(options.report)
    config = EvaluationConfig(
        options.views, options.batch_size, options.workers, options.precision, options.speed, options.backend
    )
    result = evaluate_folder(
        options.model,
        options.data,
        split=options.split,
        protocol=options.protocol,
        clip=options.clip,
        config=config,
        device=options.device,
        output=options.out,
    )
    for line in result.summary():
        print(line)
    if options.report is not None:
        print(f"report: {write_evaluation_page(options.report, result, model=options.model)}")
    return 0
