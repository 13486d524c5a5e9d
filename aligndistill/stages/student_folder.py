"""The folder of a trained student: a Hugging Face model, its pointer and its log."""

from transformers import AutoModelForCausalLM

from aligndistill.config.models import Lora
from aligndistill.models.load import ModelPointer
from aligndistill.processes.ranks import is_main_process
from aligndistill.stages.context import StageContext
from aligndistill.stages.files import write_log
from aligndistill.training.fit import Trained
from aligndistill.training.save import save_model


def save_student(context: StageContext, start: ModelPointer, lora: Lora | None, trained: Trained) -> None:
    """Write the folder. Every process takes part in collecting the weights."""
    save_model(trained, context.folder / "model", start, lora is not None, AutoModelForCausalLM)
    if is_main_process():
        start.trained().write(context.folder)
        write_log(context.folder, trained.log)
