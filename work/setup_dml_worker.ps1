# Make the virtual environment of the Windows worker.
#
#   powershell -ExecutionPolicy Bypass -File work\setup_dml_worker.ps1 [-Venv C:\face_embed_venv]
#
# Then, in WSL:  export SORT_FACES_WORKER=/mnt/c/face_embed_venv/Scripts/python.exe
param(
    [string]$Venv = "C:\face_embed_venv",
    [string]$Python = "py"
)
$ErrorActionPreference = "Stop"
$here = Split-Path -Parent $MyInvocation.MyCommand.Path

function Invoke-Checked {
    & $args[0] $args[1..($args.Length - 1)]
    if ($LASTEXITCODE -ne 0) { throw "$($args -join ' ') ended with code $LASTEXITCODE" }
}

if (-not (Test-Path "$Venv\Scripts\python.exe")) { Invoke-Checked $Python -m venv $Venv }
$exe = "$Venv\Scripts\python.exe"
Invoke-Checked $exe -m pip install --quiet --upgrade pip
Invoke-Checked $exe -m pip install --quiet -r "$here\requirements-dml.txt"
Invoke-Checked $exe -m pip install --quiet --no-deps "insightface>=1.0"
# A plain onnxruntime from an earlier attempt hides DirectML: take both away, put the right one back.
& $exe -m pip show --quiet onnxruntime 2>$null
if ($LASTEXITCODE -eq 0) {
    Invoke-Checked $exe -m pip uninstall --quiet --yes onnxruntime onnxruntime-directml
    Invoke-Checked $exe -m pip install --quiet "onnxruntime-directml>=1.17"
}
Invoke-Checked $exe -c "import onnxruntime as o, insightface; p = o.get_available_providers(); print(p); assert 'DmlExecutionProvider' in p, 'DirectML is missing'"
Write-Host "worker ready: $exe"
