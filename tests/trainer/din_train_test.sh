#!/usr/bin/env bash
# din-train as its users run it: every model trained, exported, accepted by dinctl and equal to libtorch over the whole
# test set; a training that goes on; a comparison; errors that name what is wrong.
#   din_train_test.sh BIN
set -euo pipefail
train=$1/din-train dinctl=$1/dinctl
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export OMP_NUM_THREADS=1
fail() { echo "din_train_test: $*" >&2; exit 1; }

mkdir "$work/shop"
awk -f "$(dirname "$0")/shop.awk" </dev/null | gzip >"$work/shop/events.tsv.gz"

small=(--data "$work/shop" --epochs 2 --batch 64 --dim 4 --tower 8,4 --attention 6 --threads 1)
version=0
for model in lr base wide-deep pnn deepfm din; do
  version=$((version + 1))
  "$train" train "${small[@]}" --model $model --out "$work/models/shop" --version $version --golden 0 \
    --checkpoint "$work/$model.ckpt" >"$work/$model.log" 2>&1 || fail "train $model: $(cat "$work/$model.log")"
  "$dinctl" verify "$work/models/shop/$version" >"$work/out" 2>&1 || fail "dinctl refuses $model: $(cat "$work/out")"
  "$train" verify --checkpoint "$work/$model.ckpt" --snapshot "$work/models/shop/$version" >"$work/out" 2>&1 ||
    fail "verify $model: $(cat "$work/out")"
  [ "$(grep -c 'user AUC' "$work/out")" = 2 ] || fail "verify $model printed: $(cat "$work/out")"
  [ "$(grep 'user AUC' "$work/out" | sed 's/^[a-z]* *: //; s/log loss.*//' | sort -u | wc -l)" = 1 ] ||
    fail "$model: the AUCs differ: $(cat "$work/out")"
done
"$train" export --checkpoint "$work/din.ckpt" --out "$work/models/shop" --version 7 --precision bf16 >"$work/out" 2>&1 ||
  fail "export bf16: $(cat "$work/out")"
"$train" verify --checkpoint "$work/din.ckpt" --snapshot "$work/models/shop/7" >"$work/out" 2>&1 ||
  fail "verify bf16: $(cat "$work/out")"

# Two epochs and two more are four.
"$train" train "${small[@]}" --epochs 4 --checkpoint "$work/din.ckpt" --out "$work/models/shop" --version 8 \
  >"$work/out" 2>&1 || fail "resume: $(cat "$work/out")"
grep -q 'going on from epoch 2' "$work/out" || fail "it did not go on: $(cat "$work/out")"
"$train" train "${small[@]}" --epochs 4 --out "$work/models/shop" --version 9 >/dev/null 2>&1
cmp -s "$work/models/shop/8/weights.safetensors" "$work/models/shop/9/weights.safetensors" ||
  fail "a training that went on differs from one that did not stop"

"$train" compare "${small[@]}" --out "$work/compare" --variants lr,base,base+mba,din+dice --seeds 2 --runs 3 >"$work/out" 2>&1 ||
  fail "compare: $(cat "$work/out")"
grep -q '5 runs of 8 are missing' "$work/out" || fail "compare printed: $(cat "$work/out")"
"$train" compare "${small[@]}" --out "$work/compare" --variants lr,base,base+mba,din+dice --seeds 2 >"$work/out" 2>&1 ||
  fail "compare: $(cat "$work/out")"
for file in compare.md compare.json epochs.svg; do [ -s "$work/compare/$file" ] || fail "compare wrote no $file"; done

# refuses CODE WORDS COMMAND...: fails with this exit code and says these words.
refuses() {
  local code=$1 words=$2 got=0
  shift 2
  "$@" >"$work/out" 2>&1 || got=$?
  [ $got = "$code" ] || fail "exit $got, expected $code: $* : $(cat "$work/out")"
  grep -qF -- "$words" "$work/out" || fail "expected \"$words\": $* : $(cat "$work/out")"
}
refuses 2 'did you mean train?' "$train" trian
refuses 2 'did you mean --epochs?' "$train" train --epoch 3
refuses 2 'accepted: lr, base, wide-deep, pnn, deepfm, din' "$train" train --model din2
refuses 2 'unknown model "bas"; did you mean base?' "$train" compare --data x --out "$work/c" --variants bas
refuses 2 'unknown addition "mab"; did you mean mba?' "$train" compare --data x --out "$work/c" --variants din+mab
refuses 1 'no data set is there' "$train" train --data "$work" --out "$work/models/none"
refuses 2 'the checkpoint is of another training: --seed=9 now, --seed=1 then' "$train" train "${small[@]}" --model lr \
  --seed 9 --checkpoint "$work/lr.ckpt" --out "$work/models/none"
: >"$work/empty.tsv"
refuses 1 'empty.tsv: empty' "$train" train --data "$work/empty.tsv" --out "$work/models/none"
head -c 100 "$work/shop/events.tsv.gz" >"$work/cut.tsv.gz"
refuses 1 'truncated' "$train" train --data "$work/cut.tsv.gz" --out "$work/models/none"
refuses 1 'learning rate 1e+09' "$train" train "${small[@]}" --learning-rate 1e9 --out "$work/models/none"
echo "din-train: all right"
