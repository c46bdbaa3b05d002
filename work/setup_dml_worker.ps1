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
$Venv = $Venv.TrimEnd("\")  # before a closing quote it would be taken for part of the name
$exe = "$Venv\Scripts\python.exe"

# Run a program and return what it writes to stdout; end the script if it fails. Windows PowerShell
# takes a line on a stderr that is redirected or captured by its host for an error, and under "Stop"
# for the end: so nothing is redirected, and here, where programs run, errors do not stop. What
# counts is the exit code.
function Invoke-Program([string]$Program, [string[]]$Arguments) {
    $ErrorActionPreference = "Continue"
    $PSNativeCommandUseErrorActionPreference = $false
    $global:LASTEXITCODE = $null
    & $Program $Arguments
    if ($LASTEXITCODE -ne 0) {
        throw "$Program $Arguments ended with code $LASTEXITCODE (none: it did not start)"
    }
}

if (-not (Test-Path -LiteralPath $exe)) { Invoke-Program $Python @("-m", "venv", $Venv) }
$pip = @("-m", "pip", "--disable-pip-version-check")
Invoke-Program $exe ($pip + @("install", "--quiet", "--upgrade", "pip"))
Invoke-Program $exe ($pip + @("install", "--quiet", "-r", "$PSScriptRoot\requirements-dml.txt"))
Invoke-Program $exe ($pip + @("install", "--quiet", "--no-deps", "insightface>=1.0"))
# A plain onnxruntime from an earlier attempt hides DirectML: take both away, put the right one back.
$installed = Invoke-Program $exe ($pip + @("list", "--format=freeze"))
if ($installed -match "^onnxruntime==") {
    $both = @("onnxruntime", "onnxruntime-directml")
    Invoke-Program $exe ($pip + @("uninstall", "--quiet", "--yes") + $both)
    Invoke-Program $exe ($pip + @("install", "--quiet", "onnxruntime-directml>=1.17"))
}
# By the tool itself, which keeps onnxruntime from reporting its use.
$check = "import sys; sys.path.append(sys.argv[1]); import sort_faces as sf, insightface; " +
    "print(sf.companion('onnx_models').choose_provider(sf.EngineSpec(provider='directml')))"
Invoke-Program $exe @("-c", $check, (Split-Path -Parent $PSScriptRoot))
Write-Host "worker ready: $exe"
